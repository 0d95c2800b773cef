"""Judges what a tiny model answered: it runs, was refused in one sentence, crashed, or computes something else."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vllm_wheels.core.verify.finding import Outcome, OutcomeKind

TOKENS = 12
"""How many tokens a model is asked for, per prompt."""

COMPARABLE = 4
"""Places that must be compared before an answer counts as near the right one, over all prompts."""

REFUSALS = frozenset({"ImportError", "NotImplementedError", "RuntimeError", "ValidationError", "ValueError"})
"""Kinds of error that Python code raises to refuse a model; others are accidents."""

SENTENCE = 240


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    """Largest difference of a token's log-likelihood at each place, up to the first different token of two answers.

    Tokens alone would not do: of two that are equally likely, either may be taken.
    """
    found = []
    for number, (mine, theirs) in enumerate(zip(one["likelihoods"], other["likelihoods"], strict=True)):
        shared = mine.keys() & theirs.keys()
        found.append(max((_apart(mine[token], theirs[token]) for token in shared), default=math.inf))
        if one["tokens"][number] != other["tokens"][number]:
            break
    return found


def farthest(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest of these differences; infinite where there is nothing to compare."""
    return max(differences(one, other), default=math.inf)


def _apart(one: float | None, other: float) -> float:
    """The difference; a number that is none is null in JSON."""
    return math.inf if one is None else abs(one - other)


def judged(name: str, entry: Mapping[str, Any], found: Mapping[str, Any], right: Mapping[str, Any] | None) -> Outcome:
    """What became of the model of an entry of models.toml, ``right`` being its entry in answers.json."""
    kind, line = _ended(entry, found) if "stage" in found else _answered(entry, found, right)
    return Outcome(model=name, title=entry["title"], kind=kind, line=line)


def _ended(entry: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[OutcomeKind, str]:
    error = " ".join(str(found["error"]).split())[:SENTENCE]
    if found["stage"] == "registry":
        return "unknown", f"this release of vLLM has no {error}"
    if "signal" in found:
        error = f"the process ended with status {found['signal']}"
    defect = entry.get("defect")
    if defect and re.search(defect["error"], error):
        return "known defect", f"{defect['reason']} ({error})"
    refusing = found["raised"] and found["stage"] == "load" and error.partition(":")[0] in REFUSALS
    if refusing and (entry.get("refusable") or "quantization" in entry):
        return "refused", error.partition(":")[2].strip()
    return "crashed", error


def _answered(
    entry: Mapping[str, Any], found: Mapping[str, Any], right: Mapping[str, Any] | None
) -> tuple[OutcomeKind, str]:
    if fault := _fault(found):
        return "wrong", fault
    if right is None:
        return "runs", "twice the same"
    apart = _vectors_apart(found, right) if "vectors" in found else _tokens_apart(found, right)
    distance = max(apart, default=math.inf)
    if distance > entry["tolerance"]:
        defect = entry.get("defect")
        if defect and re.search(defect["error"], "wrong"):
            return "known defect", f"{defect['reason']} (differs by {distance:.2f} from the right answer)"
        return "wrong", f"differs by up to {distance:.2f} from the right answer, {entry['tolerance']} is accepted"
    if len(apart) < COMPARABLE:
        return "wrong", f"gives other tokens than the right ones after {len(apart)} of {2 * TOKENS} places"
    return "runs", f"twice the same; differs by at most {distance:.3f} from the right answer"


def _fault(found: Mapping[str, Any]) -> str:
    numbers = [value for row in found.get("likelihoods", ()) for place in row for value in place.values()]
    if None in numbers or any(None in vector for vector in found.get("vectors", ())):
        # Before the comparison of both runs, for no such number is like another.
        return "a likelihood or a number of a vector is not a number"
    if not found["same"]:
        return "the second run gave another answer"
    for tokens, places in zip(found.get("tokens", ()), found.get("likelihoods", ()), strict=True):
        if len(tokens) != TOKENS:
            return f"{len(tokens)} tokens in place of {TOKENS}"
        if strange := [token for token, place in zip(tokens, places, strict=True) if str(token) not in place]:
            return f"tokens without a likelihood: {strange}"
    return ""


def _tokens_apart(found: Mapping[str, Any], right: Mapping[str, Any]) -> list[float]:
    apart: list[float] = []
    for number in range(len(right["tokens"])):
        mine, theirs = (
            {"tokens": each["tokens"][number], "likelihoods": each["likelihoods"][number]} for each in (found, right)
        )
        apart += differences(mine, theirs)
    return apart


def _vectors_apart(found: Mapping[str, Any], right: Mapping[str, Any]) -> list[float]:
    """Differences of the first numbers of each vector, which have length 1, in units of their mean size."""
    apart: list[float] = []
    for mine, theirs in zip(found["vectors"], right["vectors"], strict=True):
        unit = math.sqrt(len(mine))
        apart += [_apart(one, other) * unit for one, other in zip(mine, theirs, strict=False)]
    return apart


def convicting(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes that convict a wheel."""
    return [each for each in outcomes if each.kind in ("crashed", "wrong")]
