"""The receipt: what was published where, with which hashes, and what the index answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vllm_wheels.core.engine.plan import digest
from vllm_wheels.core.errors import PublicationError
from vllm_wheels.core.formats.wheel_name import sidecar
from vllm_wheels.core.host.files import own_folder, write_atomically

SCHEMA = 1
FOLDER = "publish"
RECEIPT = "receipt.json"


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file on an index."""

    name: str  # of the file
    sha256: str  # of its bytes, as verified and as the index has them
    size: int
    url: str
    listed_at: str  # when the index listed it first, ISO 8601
    uploaded_at: str | None  # what the index says of the upload; None where it does not
    answers: tuple[str, ...]  # to every attempt; none if it was there already
    reports: Mapping[str, str]  # SHA-256 of the report by Python
    # Pythons that it claims and was not tried on, each with the reason
    without: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of one variant of a release on one index."""

    release: str  # of vLLM
    version: str  # of the package
    variant: str
    project: str
    repository: str
    index: str  # its simple API
    files: tuple[PublishedFile, ...]  # all files of the variant
    # Where the same bytes were installed back from and with what verdicts; empty if no test index is set
    tested: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA  # layout of the JSON

    @property
    def data_version(self) -> str:
        """Hash of the receipt."""
        return digest(self.as_json())

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 by file name."""
        return {file.name: file.sha256 for file in self.files}

    def as_json(self) -> dict[str, Any]:
        """The receipt as plain JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Receipt:
        """Reads what ``as_json`` gave."""
        files = tuple(PublishedFile(**{**file, "answers": tuple(file["answers"])}) for file in data["files"])
        return cls(**{**data, "files": files})


def folder(state_folder: Path, repository: str) -> Path:
    """Where journal and receipts of a repository are."""
    return state_folder / FOLDER / repository


def path_of(state_folder: Path, *, repository: str, version: str, variant: str) -> Path:
    """Where the receipt of a variant is."""
    return folder(state_folder, repository) / version / f"{variant}.{RECEIPT}"


def find(state_folder: Path, *, repository: str, version: str, variant: str) -> Receipt | None:
    """The receipt of a variant, if it was published; one that cannot be read is written anew by who publishes again."""
    path = path_of(state_folder, repository=repository, version=version, variant=variant)
    try:
        return _read(path) if path.is_file() else None
    except PublicationError:
        return None


def keep(state_folder: Path, receipt: Receipt) -> Receipt:
    """Keeps a receipt; an earlier one of the same bytes stays as it is and is returned."""
    key = {"repository": receipt.repository, "version": receipt.version, "variant": receipt.variant}
    earlier = find(state_folder, **key)
    if earlier and earlier.hashes == receipt.hashes:
        return earlier
    own_folder(folder(state_folder, receipt.repository))
    write_atomically(path_of(state_folder, **key), json.dumps(receipt.as_json(), indent=1, sort_keys=True))
    return receipt


def receipts(state_folder: Path) -> Iterator[Receipt]:
    """All receipts of this installation, by path; PublicationError where one cannot be read."""
    for path in sorted((state_folder / FOLDER).glob(f"*/*/*.{RECEIPT}")):
        yield _read(path)


def _read(path: Path) -> Receipt:
    try:
        return Receipt.from_json(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        what = f"the receipt {path} cannot be read"
        raise PublicationError(what, why=f"{type(error).__name__}: {error}", remedy="publish again") from error


def deliver(receipt: Receipt, output_folder: Path) -> list[Path]:
    """Puts a receipt beside every wheel that it names, under the name of its index, and returns where."""
    text = json.dumps(receipt.as_json(), indent=1, sort_keys=True)
    kind = f"{receipt.repository}.{RECEIPT}"
    paths = [sidecar(output_folder / file.name, kind) for file in receipt.files]
    for path in paths:
        write_atomically(path, text)
    return paths
