"""Plans names, texts, requirements and Python-level patches of a variant; nothing of it compiles."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.artifacts.patched.planning import (
    PACKAGE,
    Patching,
    changed_of,
    native_of,
    of_upstream,
    patching,
    read_back,
    sha256,
    wanted_for,
    write_files,
)
from vllm_wheels.core.artifacts.source.planning import upstream_of
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step, digest
from vllm_wheels.core.host.commands import STAGE
from vllm_wheels.core.names import distributions, version_of
from vllm_wheels.core.patches import licence
from vllm_wheels.core.patches.applying import patched
from vllm_wheels.core.patches.pyproject import Project, described, edited, optional_dependencies
from vllm_wheels.core.patches.readme import README, filled, template
from vllm_wheels.core.patches.requirements import Requirements, Rewriting
from vllm_wheels.core.patches.upstream import PYPROJECT
from vllm_wheels.core.variants import Variant, platform_for, variant

if TYPE_CHECKING:
    from vllm_wheels.core.engine.rule import PlanContext
    from vllm_wheels.core.patches.patch import Wanted
    from vllm_wheels.core.patches.tree import Tree
    from vllm_wheels.core.patches.upstream import Upstream
    from vllm_wheels.core.settings import Settings

KIND = "metadata"
OVERLAY, METADATA, DIFF = "overlay", "METADATA", "changes.diff"
READ_FROM_UPSTREAM = ("release", "family", "torch", "pythons", "runtime_requirements")


@dataclass(frozen=True, kw_only=True)
class Naming(Patching):
    """Arguments of ``write``: what was patched, and the text of the README template as it was when this was planned."""

    patched: str
    notices: tuple[str, ...]
    template: str


@dataclass(frozen=True, kw_only=True)
class PatchSet:
    """Everything that makes a variant's wheel differ from upstream's; files by path in the wheel or the source tree."""

    overlay: Mapping[str, str]
    native: Mapping[str, str]
    pyproject: str
    metadata: str
    diff: str
    facts: Mapping[str, Any]


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``metadata``.

    Raises:
        UnknownVariantError: the target's variant does not exist.
        MachineError: it is not for this machine's platform.
        SettingsError: the template of the long description cannot be read, or a name is wrong.
    """
    settings, target, chosen = context.settings, context.target, context.variant
    platform_for(chosen)
    name = distributions(settings)[chosen.name]
    upstream = upstream_of(context)
    step = Step(
        title=f"name and describe vLLM {target.release} for {chosen.name} as {name}",
        action=write,
        arguments=(arguments := _naming(context, upstream)),
        reads=(arguments.tree,),
        writes=tuple(f"{STAGE}/{part}" for part in (OVERLAY, METADATA, PYPROJECT, DIFF)),
        seconds=3,
    )
    return Plan(
        artifact=KIND,
        target=target,
        inputs=_inputs(upstream, settings, arguments.template) if upstream else {},
        steps=(step,),
        notices=_rewriting(upstream, chosen, settings).runtime().notices if upstream else (),
    )


def _naming(context: PlanContext, upstream: Upstream | None) -> Naming:
    made = context.known.get("patched")
    return Naming(
        **vars(patching(context, upstream)),
        patched=str(made.folder) if made else "<patched, not made yet>",
        notices=tuple(made.facts["notices"]) if made else (),
        template=template(context.settings),
    )


def _inputs(upstream: Upstream, settings: Settings, template: str) -> dict[str, Any]:
    return {
        "upstream": of_upstream(upstream, READ_FROM_UPSTREAM),
        "distributions": distributions(settings),
        "wheel": settings.wheel.model_dump(mode="json", exclude={"distributions", "readme"}),
        "torch_version": settings.torch.version,
        "unified_baseline": settings.builder.unified_baseline,
        "template_sha256": sha256(template),
    }


def write(context: ActionContext, arguments: Naming) -> Made:
    """Writes the patch set, without the build files, into the stage.

    Raises:
        PatchError: a file cannot be read.
        SettingsError: a setting of the wheel is wrong.

    Returns:
        Facts ``distribution``, ``version``, ``same_code_as`` (variant, or None), ``flags`` (of the
        compiler), ``requires_dist``, ``dropped_requirements``, ``notices``, ``license`` (``expression``, ``files``),
        ``additions`` (files new to the wheel) and ``sha256`` (of all that was written).
    """
    tree, upstream = context.path(arguments.tree), arguments.upstream
    assert upstream is not None  # noqa: S101 - a plan without it has no key, and is not carried out
    wanted = wanted_for(tree, upstream, variant(arguments.variant), context.settings)
    changed = read_back(context.path(arguments.patched), tree, upstream.release, arguments.notices)
    made = _named(changed, wanted, context.settings, arguments.template)
    write_files(context.stage / OVERLAY, made.overlay)
    texts = {PYPROJECT: made.pyproject, METADATA: made.metadata, DIFF: made.diff}
    for path, text in texts.items():
        (context.stage / path).write_bytes(text.encode())
    for notice in made.facts["notices"]:
        context.say(notice)
    content = digest({path: sha256(text) for path, text in {**made.overlay, **texts}.items()})
    return Made(facts={**made.facts, "sha256": content})


def patch_set(tree: Path, *, upstream: Upstream, variant: Variant, settings: Settings) -> PatchSet:
    """What makes the variant's wheel differ from upstream's; reads the tree and writes nothing.

    Raises:
        PatchError: a patch did not take, or a file cannot be read.
        VariantNotInReleaseError: the release cannot honour the variant.
        SettingsError: a setting of the wheel is wrong.
    """
    wanted = wanted_for(tree, upstream, variant, settings)
    return _named(patched(tree, wanted), wanted, settings, template(settings))


def _named(changed: Tree, wanted: Wanted, settings: Settings, text: str) -> PatchSet:
    """Names and describes what the patches left of a tree; ``text`` is the README template."""
    upstream, variant = wanted.upstream, wanted.variant
    version = version_of(upstream.release, settings)
    readme = filled(changed, wanted, text=text, version=version, settings=settings)
    rewriting = _rewriting(upstream, variant, settings)
    requirements = rewriting.runtime()
    extras = {name: rewriting.rewritten(lines) for name, lines in optional_dependencies(changed).items()}
    project = Project(
        name=wanted.distribution,
        version=version,
        description=wanted.summary,
        dependencies=requirements.kept,
        extras={name: extra.kept for name, extra in extras.items()},
        licence=licence.expression(wanted),
    )
    pyproject = edited(changed, project, settings)
    described_as = described(changed, pyproject, readme)
    native = native_of(changed)
    overlay = {path: text for path, text in changed_of(changed).items() if path.startswith(PACKAGE)}
    facts = {
        "distribution": wanted.distribution,
        "version": version,
        "same_code_as": wanted.same_code.same_code_as if wanted.same_code else None,
        "flags": list(wanted.code.flags),
        "requires_dist": list(described_as.requires_dist),
        **_left_out((requirements, *extras.values()), changed.notices),
        "license": described_as.license,
        "additions": [path for path in overlay if not changed.original(path)],
    }
    return PatchSet(
        overlay=overlay,
        native=native,
        pyproject=pyproject,
        metadata=described_as.text,
        diff=_diff(changed, {**native, **overlay, PYPROJECT: pyproject, README: readme}),
        facts=facts,
    )


def _left_out(every: Sequence[Requirements], notices: Iterable[str]) -> dict[str, list[str]]:
    return {
        "dropped_requirements": [line for part in every for line in part.dropped],
        "notices": list(dict.fromkeys([*(line for part in every for line in part.notices), *notices])),
    }


def _rewriting(upstream: Upstream, variant: Variant, settings: Settings) -> Rewriting:
    return Rewriting(upstream=upstream, distribution=distributions(settings)[variant.name], settings=settings)


def _diff(tree: Tree, texts: Mapping[str, str]) -> str:
    parts: list[str] = []
    for path, text in sorted(texts.items()):
        before = f"a/{path}" if tree.original(path) else "/dev/null"
        old, new = tree.original(path).splitlines(), text.splitlines()
        parts.extend(difflib.unified_diff(old, new, before, f"b/{path}", lineterm=""))
    return "".join(f"{line}\n" for line in parts)
