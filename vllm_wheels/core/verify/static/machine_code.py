"""The machine code has the instructions that the variant promises, none above it, and is no other variant's code."""

import re
from collections.abc import Sequence

from vllm_wheels.core.formats.instructions import Fault, judge
from vllm_wheels.core.names import distributions
from vllm_wheels.core.patches.labels import as_labelled, stated
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import Variant, variants
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed, skipped
from vllm_wheels.core.verify.claims import Claim
from vllm_wheels.core.verify.composition import BASELINE_FEATURES
from vllm_wheels.core.verify.finding import Severity
from vllm_wheels.core.verify.unpacked import Neighbour, UnpackedWheel

DISPATCHED = re.compile(r"vllm/_C(_AVX\w+)?\.[^/]*so")
"""Upstream's own extensions, of which vLLM imports the one that fits the CPU (unified family, from 0.17.0)."""

CHOICE = "vllm/platforms/cpu.py"
"""Where vLLM chooses."""

LEAST_SHARE = 20
"""An extension with less than a twentieth of the instructions of the largest stands in for none."""

IDENTICAL_CODE = "identical-code"
SCAN_TOOLS = ("iced-x86", "pyelftools")
"""Tools that decode the machine code."""

SAME = "instruction for instruction, operands aside, its machine code is"
LADDER = "the ladder of vllm-wheels"
LOWEST = ("AVX2",)
"""What an extension has that stands in for others on lesser CPUs."""

NATIVE = "take the build machine's own instruction sets out of the build (no -march=native, no /proc/cpuinfo)"
UNKNOWN = "nobody knows which variant it is (give --variant)"


def judged_as(variant: Variant, summary: str, settings: Settings) -> tuple[Variant, Variant | None]:
    """The variant whose promises the machine code must keep, and the lower variant whose code the wheel says it holds.

    By its summary a wheel says that it holds other code than its name tells.
    """
    named = distributions(settings)
    return as_labelled(variant, summary, named), stated(variant, summary, named)


def _judged_as(unpacked: UnpackedWheel) -> tuple[Variant | None, Variant | None]:
    return judged_as(unpacked.variant, unpacked.summary, unpacked.settings) if unpacked.variant else (None, None)


def _faults(unpacked: UnpackedWheel) -> tuple[Fault, ...]:
    code, _ = _judged_as(unpacked)
    return judge(unpacked.scan, code) if code else ()


def _promised(unpacked: UnpackedWheel) -> Judgement:
    if unpacked.claim:
        return _said(unpacked, unpacked.claim)
    code, admitted = _judged_as(unpacked)
    if unpacked.variant is None or code is None:
        return skipped(UNKNOWN)
    lacking = _lacking(unpacked)
    if lacking:
        promise = f"{unpacked.variant.name} promises {', '.join(lacking)}"
        line = f"{_measure(unpacked)}{promise}, and there is no such instruction"
        remedy = "build it with the variant's flags; a release that ignores them cannot be this variant"
        return convicted(line, evidence=_histogram(unpacked), remedy=remedy, severity=_severity(unpacked))
    features = unpacked.scan.features
    counts = ", ".join(f"{features[name]} of {name}" for name in code.promises)
    beside = f", as {admitted.name}, whose code it says it holds" if admitted else ""
    return passed(f"has {counts}{beside}", evidence=_histogram(unpacked))


def _said(unpacked: UnpackedWheel, claim: Claim) -> Judgement:
    """Holds a wheel of another maker against its own words."""
    features = unpacked.scan.features
    broken = claim.broken(features)
    if broken:
        places = ", ".join(dict.fromkeys(claim.said[word] for word in broken))
        line = f"it says {claim.text}, and there is no instruction of {', '.join(broken)} ({places} says so)"
        remedy = "build it with what it says, or say what it has"
        return convicted(line, evidence=_histogram(unpacked), remedy=remedy)
    lacking = _lacking(unpacked)
    ladder = f"; by {LADDER} {unpacked.distribution} would have {', '.join(lacking)} too" if lacking else ""
    if not claim.said:
        return passed(f"it says {claim.text}, and promises nothing{ladder}", evidence=_histogram(unpacked))
    return passed(f"it says {claim.text}, and has instructions of each{ladder}", evidence=_histogram(unpacked))


def _lacking(unpacked: UnpackedWheel) -> list[str]:
    return [fault.feature for fault in _faults(unpacked) if fault.file is None]


def _measure(unpacked: UnpackedWheel) -> str:
    """What a verdict is measured by, where it is not the wheel's own claim."""
    return "" if unpacked.claim is None else f"of instructions it says nothing that is understood here; by {LADDER} "


def _severity(unpacked: UnpackedWheel) -> Severity:
    return "error" if unpacked.claim is None else "warning"


def _forbidden(unpacked: UnpackedWheel) -> Judgement:
    if unpacked.claim:
        return _unsaid(unpacked, unpacked.claim)
    code, _ = _judged_as(unpacked)
    if unpacked.variant is None or code is None:
        return skipped(UNKNOWN)
    found = [fault for fault in _faults(unpacked) if fault.file is not None]
    own = _needed(unpacked, code.promises, found)
    evidence = "\n".join(str(fault) for fault in found)
    if own:
        line = f"{_measure(unpacked)}{unpacked.variant.name} must not need {_counts(own)}"
        return convicted(line, evidence=evidence, remedy=NATIVE, severity=_severity(unpacked))
    if found:
        return passed(f"what is above {unpacked.variant.name} is only in {_elsewhere(found)}", evidence=evidence)
    return passed(f"nothing above {unpacked.variant.name}")


def _unsaid(unpacked: UnpackedWheel, claim: Claim) -> Judgement:
    """Looks for instructions of which a wheel of another maker says nothing, or says that it has none."""
    found = [
        Fault(feature=name, file=file.name, count=count, address=file.first[name], grafted=file.grafted)
        for file in unpacked.scan.files
        for name, count in file.features.items()
        if claim.too_much(name)
    ]
    own = _needed(unpacked, LOWEST, found)
    evidence = "\n".join(str(fault) for fault in found)
    if own:
        return convicted(f"it says {claim.text}, and needs {_counts(own)}", evidence=evidence, remedy=NATIVE)
    if found:
        return passed(f"it says {claim.text}; more than that is only in {_elsewhere(found)}", evidence=evidence)
    more = "so that no CPU needs all of it" if claim.chosen else "and nothing in it is more than that"
    return passed(f"it says {claim.text}, {more}", evidence=evidence)


def _elsewhere(found: Sequence[Fault]) -> str:
    """Where instructions are that a lesser CPU does not meet, or need not."""
    grafted = dict.fromkeys(str(fault.file) for fault in found if fault.grafted)
    chosen = dict.fromkeys(str(fault.file) for fault in found if not fault.grafted)
    places = [f"{', '.join(chosen)}, which vLLM imports on CPUs that have them"] if chosen else []
    places += [f"{', '.join(grafted)}, grafted and not of this build"] if grafted else []
    return "; and in ".join(places)


def _needed(unpacked: UnpackedWheel, promises: Sequence[str], found: list[Fault]) -> list[Fault]:
    """The faults in code that is run whatever the CPU has."""
    alone = _left_alone(unpacked, promises, found)
    return [fault for fault in found if not fault.grafted and fault.file not in alone]


def _counts(faults: Sequence[Fault]) -> str:
    return ", ".join(f"{fault.count} of {fault.feature} in {fault.file}" for fault in faults)


def _left_alone(unpacked: UnpackedWheel, promises: Sequence[str], found: list[Fault]) -> set[str]:
    """Extensions that vLLM does not import on a CPU of the variant's level, since another one is for that level."""
    guilty = {fault.file for fault in found}
    siblings = [file for file in unpacked.scan.own if DISPATCHED.fullmatch(file.name)]
    largest = max((file.instructions for file in siblings), default=0)
    whole = [
        file
        for file in siblings
        if file.name not in guilty
        and file.instructions * LEAST_SHARE >= largest
        and any(file.features.get(name) for name in promises)
    ]
    return {file.name for file in siblings} if any(_is_imported(unpacked, file.name) for file in whole) else set()


def _is_imported(unpacked: UnpackedWheel, name: str) -> bool:
    """Whether the code that chooses an extension knows this one."""
    module = name.removeprefix("vllm/").partition(".")[0]
    return re.search(rf"\bvllm\.{module}\b", unpacked.text(CHOICE)) is not None


def _histogram(unpacked: UnpackedWheel) -> str:
    lines = []
    for file in unpacked.scan.files:
        counts = {name: number for name, number in file.features.items() if name not in BASELINE_FEATURES}
        named = ", ".join(f"{name} {number}" for name, number in sorted(counts.items(), key=lambda each: -each[1]))
        lines.append(f"{file.name}: {file.size} bytes of code, {file.instructions} instructions: {named or 'plain'}")
    return "\n".join(lines)


def _identical(unpacked: UnpackedWheel) -> Judgement:
    own = unpacked.as_neighbour()
    others = [each for each in unpacked.neighbours if each.distribution != own.distribution]
    if own.code is None:
        return skipped("it holds no machine code of its own")
    if not others:
        return skipped("there is no other variant of the release to compare it with")
    _, lower = _judged_as(unpacked)
    admitted = lower.name if lower else None
    twins = [each for each in others if each.code == own.code and not _higher(each, own)]
    same = [each for each in twins if admitted is None or each.variant != admitted]
    if same:
        line = f"{SAME} that of {', '.join(each.distribution for each in same)}"
        evidence = "\n".join(f"{each.name} has the same {each.code}" for each in same)
        remedy = "publish it under the lower variant's name only, or compile it with the variant's own flags"
        return convicted(line, evidence=evidence, remedy=remedy)
    if twins:
        return passed(f"{SAME} that of {admitted}, and it says so")
    higher = sorted({each.distribution for each in others if each.code == own.code})
    unlike = sorted({each.distribution for each in others if each.code != own.code})
    lines = [f"its machine code differs from that of {', '.join(unlike)}"] if unlike else []
    lines += [f"{SAME} also that of {', '.join(higher)}, a higher variant, whose own report says so"] if higher else []
    return passed("; ".join(lines))


def _higher(other: Neighbour, own: Neighbour) -> bool:
    """Whether the other wheel is of a higher variant, so that its own verification convicts it."""
    ranks = list(variants())
    if other.variant is None or own.variant is None:
        return False
    return ranks.index(other.variant) > ranks.index(own.variant)


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check(
        "promised-instructions",
        "look for the variant's instructions",
        _promised,
        inputs=("judged_as",),
        tools=SCAN_TOOLS,
    ),
    Check(
        "forbidden-instructions",
        "look for instructions above the variant",
        _forbidden,
        inputs=("judged_as",),
        tools=SCAN_TOOLS,
    ),
    Check(
        IDENTICAL_CODE,
        "compare the machine code with other variants",
        _identical,
        inputs=("judged_as", "neighbours", "variants"),
        tools=SCAN_TOOLS,
    ),
)
