"""RECORD names every file with its true hash and size, and nothing else (PEP 376, binary distribution format)."""

import csv
import hashlib
import io
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator

from vllm_wheels.core.formats.wheelfile import SIGNATURES, RecordEntry
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, convicted_of, passed
from vllm_wheels.core.verify.unpacked import UnpackedWheel

STRONG = ("sha256", "sha384", "sha512")
"""The format forbids weaker ones."""


def _record(unpacked: UnpackedWheel) -> Judgement:
    remedy = "write RECORD with a csv library after the last change, or repack with 'wheel pack'"
    file = unpacked.file
    if not file.record:
        text = unpacked.text(f"{file.dist_info}/RECORD")
        line = "RECORD cannot be split into path, hash and size" if text.strip() else "RECORD is empty"
        return convicted(line, evidence=_unsplit(text), remedy=remedy)
    wrong = [*_twice(unpacked), *_unlisted(unpacked), *_untrue(unpacked)]
    if wrong:
        return convicted_of(wrong, remedy=remedy)
    return passed(f"{len(file.record)} entries, all true")


def _unsplit(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if '"' not in line and line.count(",") != 2)[:2000]  # noqa: PLR2004 - path,hash,size


def _twice(unpacked: UnpackedWheel) -> Iterator[str]:
    text = unpacked.text(f"{unpacked.file.dist_info}/RECORD")
    counted = Counter(row[0] for row in csv.reader(io.StringIO(text, newline="")) if row)
    yield from (f"{name} is {count} times in RECORD" for name, count in counted.items() if count > 1)


def _unlisted(unpacked: UnpackedWheel) -> Iterator[str]:
    file = unpacked.file
    excused = {f"{file.dist_info}/{name}" for name in SIGNATURES}
    for name in sorted(file.members.keys() - file.record.keys() - excused):
        yield f"{name} is not in RECORD"
    for name in sorted(file.record.keys() - file.members.keys()):
        yield f"{name} is in RECORD and not in the wheel"


def _untrue(unpacked: UnpackedWheel) -> Iterator[str]:
    own = f"{unpacked.file.dist_info}/RECORD"
    for name, entry in unpacked.file.record.items():
        if name in unpacked.file.members and name != own and (fault := _fault(unpacked, name, entry)):
            yield fault


def _fault(unpacked: UnpackedWheel, name: str, entry: RecordEntry) -> str | None:
    algorithm, _, digest = entry.hash.partition("=")
    if algorithm not in STRONG:
        return f"{name} has {'a hash of ' + algorithm if algorithm else 'no hash'} in RECORD"
    with (unpacked.folder / name).open("rb") as stream:
        found = urlsafe_b64encode(hashlib.file_digest(stream, algorithm).digest()).rstrip(b"=").decode()
    if found != digest.rstrip("="):
        return f"{name} is not the file that RECORD means: its {algorithm} differs"
    if entry.size is not None and entry.size != unpacked.file.members[name]:
        return f"{name} has {unpacked.file.members[name]} bytes, RECORD says {entry.size}"
    return None


CHECKS: tuple[Check[UnpackedWheel], ...] = (Check("record", "compare every file with RECORD", _record, seconds=1),)
