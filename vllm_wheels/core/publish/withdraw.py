"""Yanking and rolling back: what only a person can do on the index, as exact instructions with the affected files."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urljoin

from packaging.version import Version

from vllm_wheels.core.errors import PublicationError
from vllm_wheels.core.formats.wheel_name import WheelName
from vllm_wheels.core.host.files import write_atomically
from vllm_wheels.core.index.repositories import KNOWN
from vllm_wheels.core.publish.journal import Journal
from vllm_wheels.core.publish.receipt import FOLDER, PublishedFile, Receipt, receipts

YANKED = "yanked.json"


def affected(state_folder: Path, version: str) -> tuple[Receipt, ...]:
    """The receipts of a version, and what stands for them where a run was interrupted before it wrote one."""
    written = tuple(receipts(state_folder))
    known = {file.name for each in written for file in each.files}
    everything = (*written, *_interrupted(state_folder, known))
    found = tuple(each for each in everything if Version(each.version) == Version(version))
    if not found:
        others = sorted({each.version for each in everything}, key=Version)
        what = f"there is no receipt of version {version}"
        why = f"{state_folder / FOLDER} has receipts of {', '.join(others) or 'nothing'}"
        raise PublicationError(what, why=why, remedy="give one of these versions, or the right state_folder")
    return found


def _interrupted(state_folder: Path, known: Collection[str]) -> Iterator[Receipt]:
    """Files that may be on an index, by its journal, and that no receipt names."""
    for path in sorted((state_folder / FOLDER).glob("*/journal.jsonl")):
        acts = [act for act in Journal(path.parent).acts() if act["file"] not in known]
        last = {act["file"]: act["act"] for act in acts}
        for sent in {act["file"]: act for act in acts if "index" in act}.values():
            if last[sent["file"]] == "failed":
                continue
            name = WheelName.parse(sent["file"])
            file = PublishedFile(
                name=sent["file"],
                sha256=sent["sha256"],
                size=0,
                url="",
                listed_at="",
                uploaded_at=None,
                answers=(),
                reports={},
            )
            yield Receipt(
                release=str(name.version),
                version=str(name.version),
                variant="",
                project=name.distribution,
                repository=path.parent.name,
                index=sent["index"],
                files=(file,),
            )


def instructions(given: Iterable[Receipt], *, reason: str, undo: bool) -> list[str]:
    """The lines to print: for each index and project what to open, what to press, and which files it concerns."""
    lines = []
    for receipt in given:
        lines.append(f"{receipt.repository}: {'un-yank' if undo else 'yank'} {receipt.project} {receipt.version}")
        lines += [f"  {number}. {line}" for number, line in enumerate(_steps(receipt, reason, undo=undo), 1)]
        lines += [f"     affects {file.name} (sha256 {file.sha256})" for file in receipt.files]
    if not undo:
        lines.append("Yank, never delete: the name of a deleted file can never be used again.")
        lines.append('To replace it: set wheel.version_suffix = ".postN", build and publish; nothing compiles.')
    return lines


def _steps(receipt: Receipt, reason: str, *, undo: bool) -> list[str]:
    pages = {simple: urljoin(simple, "/manage/project/") for _, simple in KNOWN.values()}
    page = pages.get(receipt.index)
    if page is None:
        act = "take the mark off again" if undo else f"mark the files as yanked, with the reason: {reason}"
        return [
            f"on the server of {receipt.index}, {act}",
            "if it has no such mark (PEP 592; pypiserver and devpi have none), serve your own: vllm-wheels index",
        ]
    button = "Un-yank" if undo else "Yank"
    steps = [
        f"sign in as an owner of {receipt.project} and open {page}{receipt.project}/release/{receipt.version}/",
        f"Options > {button}; type the version {receipt.version} to confirm",
    ]
    return steps if undo else [*steps, f"give as reason: {reason}"]


def record(state_folder: Path, given: Iterable[Receipt], *, reason: str, undo: bool) -> None:
    """Notes which files are yanked, so that an index of our own marks them."""
    noted = dict(yanked(state_folder))
    for receipt in given:
        for file in receipt.files:
            noted.pop(file.sha256, None)
            if not undo:
                noted[file.sha256] = reason
    write_atomically(state_folder / FOLDER / YANKED, json.dumps(noted, indent=1, sort_keys=True))


def yanked(state_folder: Path) -> Mapping[str, str]:
    """Why files are yanked, by their SHA-256."""
    path = state_folder / FOLDER / YANKED
    found: dict[str, str] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found
