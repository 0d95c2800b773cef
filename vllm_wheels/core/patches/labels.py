"""What a wheel says about its machine code where the variant's name alone would mislead, and reads it back.

A variant is *same_code* in a release whose source gives it nothing over a lower variant. Its wheel then holds the lower
variant's machine code and says so in the one line of its description, ``Summary`` of METADATA, where people and
``as_labelled`` read it. So does a baseline wheel that holds all of upstream's extensions.
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
    """Why the variant gains nothing in a release, told by its unpacked tree; None where it gains something."""
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
    """The same_code variant as it is built: a lower one's machine code, under its own name and for its own CPUs."""
    taken = {name: getattr(lower, name) for name in ("sources", "flags", "defines", "cpuinfo", "promises", "forbids")}
    return replace(variant, **taken, ceiling=lower.ceiling)


def all_extensions(variant: Variant) -> Variant:
    """The variant as it is built with all of upstream's extensions: its own floor, the highest variant's code."""
    promises = tuple(dict.fromkeys(name for other in variants().values() for name in other.promises))
    return replace(variant, promises=promises, ceiling=())


def as_labelled(variant: Variant, summary: str, distributions: Mapping[str, str]) -> Variant:
    """The variant as which a wheel is to be judged: by its name, and by what it says of its machine code.

    Args:
        variant: by the wheel's name.
        summary: ``Summary`` of its METADATA.
        distributions: distribution name of every variant.
    """
    if ALL_EXTENSIONS in summary:
        return all_extensions(variant)
    lower = stated(variant, summary, distributions)
    return same_code(variant, lower) if lower else variant


def stated(variant: Variant, summary: str, distributions: Mapping[str, str]) -> Variant | None:
    """The lower variant whose machine code a wheel says it holds; a statement naming no lower one is not believed."""
    found = SAME_CODE_STATED.search(summary)
    names = list(variants())
    lower = names[: names.index(variant.name)]
    return next((variants()[name] for name in lower if found and found[1] == distributions[name]), None)
