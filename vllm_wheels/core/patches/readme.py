"""Renders the long description: the template, then upstream's README."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

from vllm_wheels.core.errors import SettingsError
from vllm_wheels.core.patches.features import lacking_features
from vllm_wheels.core.patches.operators import elsewhere
from vllm_wheels.core.patches.patch import Wanted
from vllm_wheels.core.patches.preloads import chooses_openmp, preloads_tcmalloc
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.vnni_python import PREDICATES
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import variants

README = "README.md"
BUILT_IN = "readme.md.tmpl"

RULE = "\n\n---\n\n"
GAP = re.compile(r"\n{3,}")
"""Left behind by a value that is empty."""

SAME_CODE_NOTE = "**In this release it holds the same machine code as `{other}`**: {why}. {gain}"
NO_GAIN = "Nothing is gained by installing it in place of `{other}`."
CALLED_GAIN = "It calls kernels of it that `{other}` leaves unused."
LACKING_NOTE = "**In this release it holds no {promise} instructions**: {why}."
DOES_NOT_RUN = """\
**What does not run in this package**, and which of the packages below runs it; vLLM refuses it in one sentence:

| does not run here | runs in |
|---|---|
{rows}"""
W4A8_NOTE = """\
**Models with 4-bit weights (AWQ, GPTQ) are computed with 8-bit activations (W4A8)**, by kernels that upstream's wheels
use on CPUs with AMX only. A matrix product was 3 to 8 times as fast as with 16-bit activations, and its error 0.009 in
place of 0.005 of the result. `VLLM_CPU_INT4_W4A8=0` switches back. Mixtures of experts with 4-bit and 8-bit weights run
too."""

PRELOADS_OPENMP = """\
vLLM preloads Intel's OpenMP library, which this package requires, into its worker processes; `LD_PRELOAD` with another
one (`libgomp`, `libomp`) takes precedence."""
PRELOADS_TCMALLOC = """\
It preloads the allocator tcmalloc as well, where `vllm/libs` of this package holds it (packages built in a container
do) and `LD_PRELOAD` names none."""
WITHOUT_TCMALLOC = """\
vLLM gets faster with tcmalloc, which is not in this package: on Debian and Ubuntu install `libtcmalloc-minimal4` and
put the path of its library into `LD_PRELOAD`."""


def template(settings: Settings) -> str:
    """Text of the template: the user's, with SettingsError where that cannot be read, or the built-in one."""
    path: Path | None = settings.wheel.readme
    if path is None:
        return files(__package__).joinpath(BUILT_IN).read_text("utf-8")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"the template {path} cannot be read"
        raise SettingsError(what, why=str(error), remedy="correct wheel.readme in the settings") from error


def filled(tree: Tree, wanted: Wanted, *, text: str, version: str, settings: Settings) -> str:
    """The long description, Markdown, made of a template's text.

    Raises:
        SettingsError: the template names a value that does not exist.
        PatchError: the release has no README.md.
    """
    values = _values(tree, wanted, version, settings)
    try:
        own = Template(text).substitute(values)
    except KeyError as error:
        what = f"the template {settings.wheel.readme or BUILT_IN} asks for ${error.args[0]}"
        raise SettingsError(what, why="there is no such value", remedy=f"use one of ${', $'.join(values)}") from error
    except ValueError as error:
        what = f"the template {settings.wheel.readme or BUILT_IN} has a $ that names nothing"
        raise SettingsError(what, why=str(error), remedy="write $$ for a dollar sign") from error
    return GAP.sub("\n\n", own).rstrip() + RULE + tree.text(README).lstrip()


def _values(tree: Tree, wanted: Wanted, version: str, settings: Settings) -> dict[str, str]:
    variant = wanted.variant
    return {
        "distribution": wanted.distribution,
        "version": version,
        "release": wanted.upstream.release,
        "variant": variant.name,
        "summary": wanted.summary,
        "code": _code(tree, wanted),
        "floor": ", ".join(f"`{flag}`" for flag in variant.floor),
        "processors": ", ".join(variant.processors),
        "torch": settings.torch.version or wanted.upstream.torch,
        "pythons": ", ".join(wanted.upstream.pythons),
        "preloads": _preloads(tree, wanted),
        "variants": "\n".join(_row(name, wanted) for name in wanted.distributions),
    }


def _code(tree: Tree, wanted: Wanted) -> str:
    """Notes on a variant whose machine code is not what its name suggests, or computes otherwise; empty for others."""
    notes = []
    if wanted.same_code:
        other = wanted.distributions[wanted.same_code.same_code_as]
        gain = (CALLED_GAIN if wanted.same_code.own_ceiling else NO_GAIN).format(other=other)
        notes.append(SAME_CODE_NOTE.format(other=other, why=wanted.same_code.why, gain=gain))
    notes += [LACKING_NOTE.format(promise=each.promise, why=each.why) for each in wanted.lacking]
    if tree.has(PREDICATES):
        notes.append(W4A8_NOTE)
    if missing := lacking_features(elsewhere(tree.root, wanted)):
        rows = "\n".join(f"| {words} | `{other}` |" for words, other in missing.items())
        notes.append(DOES_NOT_RUN.format(rows=rows))
    return "\n\n".join(notes)


def _preloads(tree: Tree, wanted: Wanted) -> str:
    openmp = [PRELOADS_OPENMP] if chooses_openmp(tree, wanted) else []
    return "\n".join([*openmp, PRELOADS_TCMALLOC if preloads_tcmalloc(tree.root) else WITHOUT_TCMALLOC])


def _row(name: str, wanted: Wanted) -> str:
    other = variants()[name]
    flags = " ".join(f"`{flag}`" for flag in other.floor)
    shown = (
        f"**`{wanted.distributions[name]}`** (this one)"
        if name == wanted.variant.name
        else f"`{wanted.distributions[name]}`"
    )
    return f"| {shown} | {flags} | {', '.join(other.processors)} |"
