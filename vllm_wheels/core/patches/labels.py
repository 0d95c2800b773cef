"""Labels wheels whose machine code is not what the variant's name suggests, and reads the label back.

A variant has the *same code* in a release whose source gives it nothing over a lower variant. Its wheel then holds the
lower variant's machine code and says so in ``Summary`` of METADATA, where people and ``as_labelled`` read it. So does a
baseline wheel that holds all of upstream's extensions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vllm_wheels.core.variants import SameCode, Variant, variants

SAME_CODE = "; in this release the same machine code as {distribution}"
SAME_CODE_STATED = re.compile(re.escape(SAME_CODE).replace(re.escape("{distribution}"), r"([\w.-]*\w)"))
ALL_EXTENSIONS = "; with all of upstream's extensions, one of which is chosen on import"


def same_code_in(variant: Variant, tree: Path) -> SameCode | None:
    """Why the variant's code is a lower variant's in a release, by its source tree; None where it has its own."""
    return next((rule for rule in variant.same_code if not _holds(tree, rule)), None)


def _holds(tree: Path, rule: SameCode) -> bool:
    sign = re.compile(rule.sign)
    return any(
        sign.search(file.read_text("utf-8", errors="replace"))
        for pattern in rule.files
        for file in tree.glob(pattern)
        if file.is_file()
    )


def same_code(variant: Variant, lower: Variant) -> Variant:
    """The variant built with a lower one's machine code, under its own name and with its own floor."""
    taken = {name: getattr(lower, name) for name in ("sources", "flags", "defines", "cpuinfo", "promises", "forbids")}
    return replace(variant, **taken, ceiling=lower.ceiling)


def all_extensions(variant: Variant) -> Variant:
    """The variant built with all of upstream's extensions: its own floor, everything that any variant promises."""
    promises = tuple(dict.fromkeys(name for other in variants().values() for name in other.promises))
    return replace(variant, promises=promises, ceiling=())


def as_labelled(variant: Variant, summary: str, distributions: Mapping[str, str]) -> Variant:
    """The variant that a wheel is to be verified as: by its name, and by the label in ``Summary`` of its METADATA."""
    if ALL_EXTENSIONS in summary:
        return all_extensions(variant)
    lower = stated(variant, summary, distributions)
    return same_code(variant, lower) if lower else variant


def stated(variant: Variant, summary: str, distributions: Mapping[str, str]) -> Variant | None:
    """The lower variant that the label names; None without a label, and for one that names no lower variant."""
    found = SAME_CODE_STATED.search(summary)
    names = list(variants())
    lower = names[: names.index(variant.name)]
    return next((variants()[name] for name in lower if found and found[1] == distributions[name]), None)
