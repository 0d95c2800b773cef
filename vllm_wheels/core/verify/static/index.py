"""The public package index would accept the wheel: a check for each rule of ``index_rules.toml``."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from vllm_wheels.core.errors import NetworkError
from vllm_wheels.core.host.limits import MIB
from vllm_wheels.core.index.published import allowed, files_of, pythons_of, wheels_of
from vllm_wheels.core.index.rules import CHECKS as JUDGES
from vllm_wheels.core.index.rules import Rule, Upload, rules
from vllm_wheels.core.index.state import ProjectState
from vllm_wheels.core.names import distributions
from vllm_wheels.core.verify.checks import METADATA_VALID, Check, Judgement, convicted, passed, skipped
from vllm_wheels.core.verify.unpacked import KNOWN, UnpackedWheel

PRIVATE = "private-classifier"
FILE_SIZE = "file-size"
FREE = frozenset({FILE_SIZE, "platform-tag"})
"""Rules that can be judged though METADATA is not valid."""

REMEDIES = {
    "file-size": "strip the extensions, or ask the index for a higher limit",
    "url-requirement": "require the package by name and version, or leave it to an extra index",
    "local-version": "leave out the +… of the version",
    "platform-tag": "build in a manylinux image and let auditwheel repair the wheel",
    "description": "correct Description-Content-Type",
}


def _by_itself(rule: Rule, unpacked: UnpackedWheel) -> Judgement:
    """Judges a rule that the wheel alone decides."""
    project = ProjectState(project=unpacked.distribution, exists=False)
    upload = Upload(
        name=unpacked.path.name,
        size=unpacked.path.stat().st_size,
        metadata=unpacked.file.metadata,
        project=project,
        growth=0,
        published_before=False,
        now=datetime.now(UTC),
    )
    fault = JUDGES[rule.name](rule, upload)
    if fault and rule.name == FILE_SIZE and _is_served(unpacked):
        return passed(f"{fault}; the configured index serves it all the same, so its limit is a higher one")
    if fault:
        remedy = REMEDIES.get(rule.name, "change the wheel so that it keeps the rule")
        return convicted(f"{fault}, but {rule.says}", evidence=_cited(rule), remedy=remedy)
    return passed(f"kept: {rule.says}")


def _is_served(unpacked: UnpackedWheel) -> bool:
    """Whether the configured index has exactly this file; one that does not answer has told nothing."""
    try:
        served = files_of(unpacked.settings, unpacked.distribution)
    except NetworkError:
        return False
    return any((each.filename, each.digests.get("sha256")) == (unpacked.path.name, unpacked.sha256) for each in served)


def _project_size(unpacked: UnpackedWheel) -> Judgement:
    rule = rules()["project-size"]
    limit = int(rule.limits["limit_bytes"])
    served = {each.filename: each.size for each in files_of(unpacked.settings, unpacked.distribution)}
    others = {**served, unpacked.path.name: unpacked.path.stat().st_size}
    unknown = [name for name, size in others.items() if size is None]
    if unknown:
        return skipped(f"the index does not tell the size of {len(unknown)} of {len(others)} files")
    total = sum(size or 0 for size in others.values())
    line = f"{len(others)} files of {unpacked.distribution} have {total / MIB:.0f} MiB of {limit / MIB:.0f}"
    if total <= limit:
        return passed(line)
    if sum(size or 0 for size in served.values()) > limit:
        return passed(f"{line}; the index holds more than that already, so the project's limit is a higher one")
    return convicted(line, evidence=_cited(rule), remedy="ask the index for a higher limit before publishing")


def _complete(unpacked: UnpackedWheel) -> Judgement:
    own = files_of(unpacked.settings, unpacked.distribution)
    if unpacked.path.name not in {each.filename for each in own}:
        return skipped("it is not published on the configured index")
    names = list(dict.fromkeys([unpacked.distribution, *distributions(unpacked.settings).values()]))
    wheels = {
        name: wheels_of(own if name == unpacked.distribution else files_of(unpacked.settings, name), unpacked.version)
        for name in names
    }
    wanted = {python for found in wheels.values() for python in allowed(found, KNOWN)}
    holes = [
        f"{name} has none for Python {python}"
        for name, found in wheels.items()
        for python in sorted(wanted - pythons_of(found, KNOWN), key=KNOWN.index)
    ]
    if holes:
        more = f" (and {len(holes) - 1} more)" if len(holes) > 1 else ""
        evidence = "\n".join([*holes, _cited(rules()["release-age"])])
        remedy = "publish what is missing under a new version suffix, such as .post1"
        return convicted(f"of release {unpacked.version}, {holes[0]}{more}", evidence=evidence, remedy=remedy)
    return passed(f"release {unpacked.version} has {len(wheels)} variants for {len(wanted)} Pythons")


def _cited(rule: Rule) -> str:
    return f"rule: {rule.says}\nsource: {rule.source}"


def _unless_private(judge: Callable[[UnpackedWheel], Judgement], unpacked: UnpackedWheel) -> Judgement:
    prefix = rules()[PRIVATE].limits["prefix"]
    marks = [str(line) for line in unpacked.file.metadata.get_all("Classifier", []) if str(line).startswith(prefix)]
    return skipped(f"it is for no index: it is marked {marks[0]!r}") if marks else judge(unpacked)


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    *(
        Check(
            f"index-{name}",
            f"hold it against the index's rule that {rule.says}",
            partial(_unless_private, partial(_by_itself, rule)),
            needs=() if name in FREE else (METADATA_VALID,),
            tools=("packaging", "readme-renderer"),
            lasting=name != FILE_SIZE,
        )
        for name, rule in rules().items()
        if rule.scope == "wheel" and name != PRIVATE
    ),
    Check(
        "index-project-size",
        "ask the index how much room the project has left",
        partial(_unless_private, _project_size),
        severity="warning",
        lasting=False,
        seconds=1,
    ),
    Check(
        "index-release-complete",
        "ask the index for the release's other wheels",
        partial(_unless_private, _complete),
        severity="warning",
        lasting=False,
        seconds=2,
    ),
)
