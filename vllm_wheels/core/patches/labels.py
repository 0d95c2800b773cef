"""Labels wheels whose machine code is not what the variant's name suggests, and reads the label back.

A variant has the *same code* in a release whose source gives it nothing over a lower variant. Its wheel then holds the
lower variant's machine code and says so in ``Summary`` of METADATA, where people and ``as_labelled`` read it. So does a
wheel that cannot keep an optional promise, and a baseline wheel that holds all of upstream's extensions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from vllm_wheels.core.patches.compiled import compiled, leaves_kernels_out
from vllm_wheels.core.variants import OptionalPromise, SameCode, Variant, variants

SAME_CODE = "; in this release the same machine code as {distribution}"
SAME_CODE_STATED = re.compile(re.escape(SAME_CODE).replace(re.escape("{distribution}"), r"([\w.-]*\w)"))
WITHOUT = "; in this release without {features} instructions"
WITHOUT_STATED = re.compile(re.escape(WITHOUT).replace(re.escape("{features}"), r"(\w+(?:, \w+)*)"))
ALL_EXTENSIONS = "; with all of upstream's extensions, one of which is chosen on import"


def same_code_in(variant: Variant, tree: Path) -> SameCode | None:
    """Why the variant's code is a lower variant's in a release, by its source tree; None where it has its own."""
    return next((rule for rule in variant.same_code if not _holds(tree, variant, rule)), None)


def lacking(variant: Variant, tree: Path) -> tuple[OptionalPromise, ...]:
    """The optional promises of a variant that it cannot keep in a release, by its source tree."""
    out_of_reach = leaves_kernels_out(tree, variant)
    return tuple(promise for promise in variant.optional if out_of_reach or not _holds(tree, variant, promise))


def _holds(tree: Path, variant: Variant, rule: SameCode | OptionalPromise) -> bool:
    sign = re.compile(rule.sign)
    files = (file for pattern in rule.files for file in tree.glob(pattern) if file.is_file())
    texts = (file.read_text("utf-8", errors="replace") for file in files) if rule.files else compiled(tree, variant)
    return any(sign.search(text) for text in texts)


def same_code(variant: Variant, lower: Variant) -> Variant:
    """The variant built with a lower one's machine code, under its own name and with its own floor and ceiling."""
    names = ("sources", "flags", "defines", "cpuinfo", "promises", "forbids", "optional", "level")
    return replace(variant, **{name: getattr(lower, name) for name in names})


def without(variant: Variant, lacking: Iterable[OptionalPromise]) -> Variant:
    """The variant built without what it promises only where a release has the kernels."""
    for each in lacking:
        variant = replace(
            variant,
            flags=tuple(flag for flag in variant.flags if flag != each.flag),
            cpuinfo=tuple(word for word in variant.cpuinfo if word != each.cpuinfo),
            promises=tuple(name for name in variant.promises if name != each.promise),
        )
    return variant


def all_extensions(variant: Variant) -> Variant:
    """The variant built with all of upstream's extensions: its own floor, everything that any variant promises."""
    promises = tuple(dict.fromkeys(name for other in variants().values() for name in other.promises))
    return replace(variant, promises=promises, ceiling=())


def as_labelled(variant: Variant, summary: str, distributions: Mapping[str, str]) -> Variant:
    """The variant that a wheel is to be verified as: by its name, and by the label in ``Summary`` of its METADATA."""
    if ALL_EXTENSIONS in summary:
        return all_extensions(variant)
    lower = stated(variant, summary, distributions)
    code = same_code(variant, lower) if lower else variant
    found = WITHOUT_STATED.search(summary)
    named = found[1].split(", ") if found else ()
    return without(code, [each for each in code.optional if each.promise in named])


def stated(variant: Variant, summary: str, distributions: Mapping[str, str]) -> Variant | None:
    """The lower variant that the label names; None without a label, and for one that names no lower variant."""
    found = SAME_CODE_STATED.search(summary)
    names = list(variants())
    lower = names[: names.index(variant.name)]
    return next((variants()[name] for name in lower if found and found[1] == distributions[name]), None)
