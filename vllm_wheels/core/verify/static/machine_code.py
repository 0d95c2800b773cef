"""The instructions are those that the variant promises, no others, and not those of another variant under its name."""

from __future__ import annotations

import re

from vllm_wheels.core.isa import Fault, judge
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify.anatomy import BASELINE_FEATURES
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed, skipped
from vllm_wheels.core.verify.specimen import Neighbour, Specimen

DISPATCHED = re.compile(r"vllm/_C(_AVX\w+)?\.[^/]*so")
"""Upstream's own extensions, of which vLLM imports the one that fits the CPU (unified family, from 0.17.0)."""

UNKNOWN = "nobody knows which variant it is (give --variant)"


def _faults(specimen: Specimen) -> tuple[Fault, ...]:
    return judge(specimen.scan, specimen.code) if specimen.code else ()


def _promised(specimen: Specimen) -> Judgement:
    if specimen.variant is None or specimen.code is None:
        return skipped(UNKNOWN)
    lacking = [fault.feature for fault in _faults(specimen) if fault.file is None]
    if lacking:
        line = f"{specimen.variant.name} promises {', '.join(lacking)}, and there is no such instruction"
        remedy = "build it with the variant's flags; a release that ignores them cannot be this variant"
        return convicted(line, evidence=_histogram(specimen), remedy=remedy)
    features = specimen.scan.features
    counts = ", ".join(f"{features[name]} of {name}" for name in specimen.code.promises)
    beside = f", as {specimen.admitted.name}, whose code it says it holds" if specimen.admitted else ""
    return passed(f"has {counts}{beside}", evidence=_histogram(specimen))


def _forbidden(specimen: Specimen) -> Judgement:
    if specimen.variant is None:
        return skipped(UNKNOWN)
    found = [fault for fault in _faults(specimen) if fault.file is not None]
    own = [fault for fault in found if not fault.grafted and fault.file not in _left_alone(specimen, found)]
    evidence = "\n".join(str(fault) for fault in found)
    if own:
        counts = ", ".join(f"{fault.count} of {fault.feature} in {fault.file}" for fault in own)
        line = f"{specimen.variant.name} must not need {counts}"
        remedy = "take the build machine's own instruction sets out of the build (no -march=native, no /proc/cpuinfo)"
        return convicted(line, evidence=evidence, remedy=remedy)
    if found:
        places = ", ".join(dict.fromkeys(str(fault.file) for fault in found))
        return passed(f"only where a CPU without them does not come: {places}", evidence=evidence)
    return passed(f"nothing above {specimen.variant.name}")


def _left_alone(specimen: Specimen, found: list[Fault]) -> set[str]:
    """Extensions that vLLM does not import on a CPU of the variant's level, because a sibling is for that level."""
    siblings = {file.name for file in specimen.scan.own if DISPATCHED.fullmatch(file.name)}
    return siblings if siblings - {fault.file for fault in found} else set()


def _histogram(specimen: Specimen) -> str:
    lines = []
    for file in specimen.scan.files:
        counts = {name: number for name, number in file.features.items() if name not in BASELINE_FEATURES}
        named = ", ".join(f"{name} {number}" for name, number in sorted(counts.items(), key=lambda each: -each[1]))
        lines.append(f"{file.name}: {file.size} bytes of code, {file.instructions} instructions: {named or 'plain'}")
    return "\n".join(lines)


def _identical(specimen: Specimen) -> Judgement:
    own = specimen.as_neighbour()
    others = [each for each in specimen.neighbours if each.distribution != own.distribution]
    if own.code is None:
        return skipped("it holds no machine code")
    if not others:
        return skipped("there is no other variant of the release to compare it with")
    admitted = specimen.admitted.name if specimen.admitted else None
    twins = [each for each in others if each.code == own.code and not _higher(each, own)]
    same = [each for each in twins if admitted is None or each.variant != admitted]
    if same:
        line = f"its machine code is that of {', '.join(each.distribution for each in same)}"
        evidence = "\n".join(f"{each.name} has the same {each.code}" for each in same)
        remedy = "publish it under the lower variant's name only, or compile it with the variant's own flags"
        return convicted(line, evidence=evidence, remedy=remedy)
    if twins:
        return passed(f"its machine code is that of {admitted}, and it says so")
    return passed(f"differs from {', '.join(sorted({each.distribution for each in others}))}")


def _higher(other: Neighbour, own: Neighbour) -> bool:
    """Does the other one claim more, so that it is the one to blame."""
    ranks = list(variants())
    if other.variant is None or own.variant is None:
        return False
    return ranks.index(other.variant) > ranks.index(own.variant)


CHECKS: tuple[Check[Specimen], ...] = (
    Check(name="promised-instructions", title="look for the variant's instructions", judge=_promised),
    Check(name="forbidden-instructions", title="look for instructions above the variant", judge=_forbidden),
    Check(name="identical-code", title="compare the machine code with other variants", judge=_identical),
)
