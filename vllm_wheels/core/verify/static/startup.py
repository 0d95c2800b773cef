"""Nothing of the wheel runs by itself, takes the place of another package's files, or is a secret of its maker."""

import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from packaging.utils import canonicalize_name

from vllm_wheels.core.formats.wheel_name import DIST_INFO
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, convicted_of, passed
from vllm_wheels.core.verify.static.known import fits, patterns
from vllm_wheels.core.verify.unpacked import UnpackedWheel

PACKAGE = "vllm"
DATA = ".data"
SITE = re.compile(r"lib(?:64)?/python3[\d.]*/(?:(?:site|dist)-packages/)?")
"""Where ``.data/data`` leads into site-packages, or into the standard library, which is looked through before them
(sysconfig, scheme ``posix_prefix``)."""

ENVIRONMENT = "pyvenv.cfg"
"""In an environment's root it names the Python that runs, and where modules are searched (PEP 405)."""

AT_START = ("sitecustomize", "usercustomize")
"""Modules that Python's ``site`` imports at every start."""

RUNS = re.compile(r"^import[ \t]", re.MULTILINE)
"""A line of a ``.pth`` file that ``site`` executes."""

SUFFIXES = re.compile(r"(?:\.(?:cpython|abi3)[^/]*)?\.(?:py|pyc|so|pth|start)$")
KEY = b"-----BEGIN "
KEY_KIND = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY")
HEAD = 4096
INSTALLERS = ("INSTALLER", "REQUESTED", "direct_url.json")
"""Files of dist-info that an installer writes (recording installed projects); ``direct_url.json`` tells where from."""


def installed_at(name: str) -> str | None:
    """Where below site-packages a member is put; None for what goes elsewhere (binary distribution format)."""
    first, _, rest = name.partition("/")
    if not first.endswith(DATA):
        return name
    scheme, _, place = rest.partition("/")
    if scheme in {"purelib", "platlib"}:
        return place
    match = SITE.match(place) if scheme == "data" else None
    return place[match.end() :] if match else None


def _runs_by_itself(unpacked: UnpackedWheel) -> Judgement:
    faults = list(_starters(unpacked))
    if faults:
        return convicted_of(faults, remedy="leave these files out: a package runs when it is imported, and not before")
    return passed("no file of it is read by Python at its start")


def _starters(unpacked: UnpackedWheel) -> Iterator[str]:
    for name in unpacked.file.members:
        place = installed_at(name)
        if place is None:
            if name.endswith(f"{DATA}/data/{ENVIRONMENT}"):
                yield f"{name} decides which Python the environment runs"
            continue
        first = SUFFIXES.sub("", place.partition("/")[0])
        if first in AT_START:
            yield f"{name} is imported at every start of Python"
        elif "/" not in place and place.endswith((".pth", ".start")):
            runs = place.endswith(".start") or RUNS.search(unpacked.text(name))
            yield f"{name} {'runs code' if runs else 'changes sys.path'} at every start of Python"


def _foreign(unpacked: UnpackedWheel) -> Judgement:
    required = {str(canonicalize_name(each.name)).replace("-", "_") for each in unpacked.requirements}
    named = {PACKAGE, unpacked.distribution.replace("-", "_")}
    own = named | {f"{name}.libs" for name in named} | {unpacked.file.dist_info}
    others: dict[str, str] = {}
    hidden = []
    for name in unpacked.file.members:
        place = installed_at(name)
        first = SUFFIXES.sub("", (place or "").partition("/")[0])
        if place and first not in own:
            others.setdefault(first.removesuffix(".libs"), name)
        elif place and name != place:
            hidden.append(f"{name} is installed as {place}, whatever stands there in the wheel")
    remedy = "ship the package vllm only"
    stolen = [f"{name} belongs among the files of {first}" for first, name in others.items() if _taken(first, required)]
    stolen += [f"{name} stands for another distribution" for first, name in others.items() if first.endswith(DIST_INFO)]
    if hidden or stolen:
        return convicted_of([*hidden, *stolen], remedy=remedy)
    if others:
        line = f"beside {PACKAGE} it installs {', '.join(list(others)[:5])}"
        return convicted(line, evidence="\n".join(others.values()), remedy=remedy, severity="warning")
    return passed("it installs no module of others")


def _taken(first: str, required: set[str]) -> bool:
    return first in sys.stdlib_module_names or first.lower() in required


def _secrets(unpacked: UnpackedWheel) -> Judgement:
    known = patterns("secrets", "files")
    found = [f"{name} is a file for secrets" for name in unpacked.file.members if fits(PurePosixPath(name).name, known)]
    found += [f"{name} holds a private key" for name in unpacked.file.members if _is_key(unpacked, name)]
    if found:
        return convicted_of(found, remedy="leave it out, and replace the secret: whoever has the wheel has it")
    return passed("no file for secrets and no private key was found")


def _is_key(unpacked: UnpackedWheel, name: str) -> bool:
    with (unpacked.folder / name).open("rb") as stream:
        head = stream.read(HEAD)
    return KEY in head and not name.endswith(".py") and KEY_KIND.search(head) is not None


def _of_installer(unpacked: UnpackedWheel) -> Judgement:
    found = [name for name in INSTALLERS if f"{unpacked.file.dist_info}/{name}" in unpacked.file.members]
    if found:
        line = f"{', '.join(found)} in dist-info is written by installers"
        evidence = unpacked.text(f"{unpacked.file.dist_info}/direct_url.json")
        return convicted(line, evidence=evidence, remedy="pack the wheel from a build, not from an environment")
    return passed("dist-info has no file of an installer")


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check("runs-at-start", "look for what runs at every start of Python", _runs_by_itself),
    Check("foreign-files", "look for files of other packages", _foreign),
    Check("secrets", "look for keys and passwords", _secrets),
    Check("installer-files", "look for what installers write", _of_installer),
)
