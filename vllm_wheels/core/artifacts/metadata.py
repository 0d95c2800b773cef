"""Makes artifact ``metadata``: a variant's patches, pyproject.toml and METADATA, and the difference to upstream as text.

Nothing of it compiles. The compiled artifact depends on the native files alone, through their hash, so that a changed text
makes a new wheel without making new machine code.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.engine.plan import Action, ActionContext, Plan, Step, digest
from vllm_wheels.core.errors import VariantNotInReleaseError
from vllm_wheels.core.host.commands import STAGE
from vllm_wheels.core.names import distributions
from vllm_wheels.core.patches import patched, sha256_of_patches
from vllm_wheels.core.patches.extras import optional_dependencies
from vllm_wheels.core.patches.labels import same_code_in
from vllm_wheels.core.patches.patch import Wanted
from vllm_wheels.core.patches.pyproject import PYPROJECT, Project, described, edited
from vllm_wheels.core.patches.readme import README, filled, template
from vllm_wheels.core.patches.requirements import Requirements, rewritten
from vllm_wheels.core.patches.upstream import Upstream
from vllm_wheels.core.variants import SameCode, Variant, lowest, platform_for, variant, variants

if TYPE_CHECKING:
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.patches.tree import Tree
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target

PACKAGE = "vllm/"
OVERLAY, NATIVE, METADATA, DIFF = "overlay", "native", "METADATA", "changes.diff"
READ_FROM_UPSTREAM = ("release", "family", "torch", "pythons", "runtime_requirements")


@dataclass(frozen=True, kw_only=True)
class PatchSet:
    """Everything that makes a variant's wheel differ from upstream's.

    Attributes:
        overlay: Python-level files by path below the wheel's root.
        native: build files by path below the source tree.
        pyproject: text of pyproject.toml.
        metadata: text of METADATA.
        diff: unified difference to upstream.
        facts: what is recorded with the artifact; see ``facts`` of ``write``.
    """

    overlay: Mapping[str, str]
    native: Mapping[str, str]
    pyproject: str
    metadata: str
    diff: str
    facts: Mapping[str, Any]


def plan(target: Target, *, source: Artifact | None, upstream: Upstream | None, settings: Settings) -> Plan:
    """The plan of artifact ``metadata``; the Python is not among the inputs.

    Args:
        target: release, Python and variant.
        source: the release's tree; None while it is missing.
        upstream: what the tree demands; None while it is missing.
        settings: of the user.

    Raises:
        UnknownVariantError: the target's variant does not exist.
        MachineError: it is not for this machine's platform.
        SettingsError: the template of the long description cannot be read, or a name is wrong.
    """
    wanted = variant(str(target.variant))
    platform_for(wanted)
    name = distributions(settings)[wanted.name]
    known = source is not None and upstream is not None
    tree = str(source.folder / "tree") if source else "<tree of source, not made yet>"
    step = Step(
        title=f"patch vLLM {target.release} for {wanted.name} and name it {name}",
        action="metadata.write",
        arguments={"tree": tree, "upstream": asdict(upstream) if upstream else None, "name": wanted.name},
        reads=(tree,),
        writes=tuple(f"{STAGE}/{part}" for part in (OVERLAY, NATIVE, METADATA, PYPROJECT, DIFF)),
        seconds=3,
    )
    return Plan(
        artifact="metadata",
        target=target,
        inputs=_inputs(source, upstream, wanted, settings) if source and upstream else {},
        steps=(step,),
        notices=_notices(source, upstream, wanted, settings) if source and upstream else (),
        unknown=() if known else ("source",),
    )


def _inputs(source: Artifact, upstream: Upstream, wanted: Variant, settings: Settings) -> dict[str, Any]:
    demands = asdict(upstream)
    return {
        "source": source.facts["tree_sha256"],
        "upstream": {name: demands[name] for name in READ_FROM_UPSTREAM},
        "variant": asdict(wanted),
        # The guard and the long description tell of the other variants.
        "variants": {name: [other.floor, other.processors] for name, other in variants().items()},
        "distributions": distributions(settings),
        "wheel": settings.wheel.model_dump(mode="json", exclude={"distributions", "readme"}),
        "torch_version": settings.torch.version,
        "unified_baseline": settings.builder.unified_baseline,
        "template_sha256": _sha256(template(settings)),
        "patches_sha256": sha256_of_patches(),
    }


def write(context: ActionContext, *, tree: str, upstream: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Writes the patch set into the stage.

    Returns:
        Facts ``distribution``, ``version``, ``platform``, ``same_code_as`` (variant, or None), ``requires_dist``,
        ``dropped_requirements``, ``notices``, ``license`` (``expression``, ``files``), ``diff_lines``,
        ``native_sha256`` and ``additions`` (files new to the wheel).

    Raises:
        PatchError: a patch did not take.
        VariantNotInReleaseError: the release cannot honour the variant.
    """
    demands = {key: _frozen(value) for key, value in upstream.items()}
    made = patch_set(context.path(tree), upstream=Upstream(**demands), variant=variant(name), settings=context.settings)
    for folder, texts in ((OVERLAY, made.overlay), (NATIVE, made.native)):
        (context.stage / folder).mkdir()
        for path, text in texts.items():
            _write(context.stage / folder / path, text)
    for path, text in ((PYPROJECT, made.pyproject), (METADATA, made.metadata), (DIFF, made.diff)):
        _write(context.stage / path, text)
    for notice in made.facts["notices"]:
        context.say(notice)
    return made.facts


def _frozen(value: Any) -> Any:
    # A plan may have gone through JSON, which knows no tuples.
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # As bytes, so that line ends stay as upstream wrote them.
    path.write_bytes(text.encode())


def patch_set(tree: Path, *, upstream: Upstream, variant: Variant, settings: Settings) -> PatchSet:
    """What makes the variant's wheel differ from upstream's; reads the tree and writes nothing.

    Args:
        tree: the unpacked release.
        upstream: what it demands.
        variant: the instruction-set level.
        settings: of the user.

    Raises:
        PatchError: a patch did not take, or a file cannot be read.
        VariantNotInReleaseError: the release cannot honour the variant.
        SettingsError: a setting of the wheel is wrong.
    """
    wanted = _wanted(tree, upstream, variant, settings)
    if wanted.same_code and settings.wheel.same_code_variants == "refuse":
        raise _refused(wanted, wanted.same_code)
    changed = patched(tree, wanted)
    version = f"{upstream.release}{settings.wheel.version_suffix}"
    readme = filled(changed, wanted, version=version, settings=settings)
    requirements, extras = _requirements(upstream, settings), _extras(changed, upstream, settings)
    project = Project(
        name=wanted.distribution,
        version=version,
        description=wanted.summary,
        dependencies=requirements.kept,
        extras={name: extra.kept for name, extra in extras.items()},
    )
    pyproject = edited(changed, project, settings)
    described_as = described(changed, pyproject, readme)
    files = {path: text for path, text in sorted(changed.changed.items()) if text != changed.original(path)}
    native = {path: text for path, text in files.items() if not path.startswith(PACKAGE)}
    overlay = {path: text for path, text in files.items() if path.startswith(PACKAGE)}
    diff = _diff(changed, {**files, PYPROJECT: pyproject, README: readme})
    facts = {
        "distribution": wanted.distribution,
        "version": version,
        "platform": platform_for(wanted.variant),
        "same_code_as": wanted.same_code.same_code_as if wanted.same_code else None,
        "requires_dist": list(described_as.requires_dist),
        **_left_out((requirements, *extras.values())),
        "license": described_as.license,
        "diff_lines": diff.count("\n"),
        "native_sha256": digest({path: _sha256(text) for path, text in native.items()}),
        "additions": [path for path in overlay if not changed.original(path)],
    }
    metadata = described_as.text
    return PatchSet(overlay=overlay, native=native, pyproject=pyproject, metadata=metadata, diff=diff, facts=facts)


def _wanted(tree: Path, upstream: Upstream, variant: Variant, settings: Settings) -> Wanted:
    whole = settings.builder.unified_baseline and upstream.family == "unified" and variant == lowest()
    same_code = None if whole else same_code_in(variant, tree)
    return Wanted(
        upstream=upstream, variant=variant, distributions=distributions(settings), same_code=same_code, whole=whole
    )


def _notices(source: Artifact, upstream: Upstream, variant: Variant, settings: Settings) -> tuple[str, ...]:
    same_code = _wanted(source.folder / "tree", upstream, variant, settings).same_code
    label = (_label(variant, upstream, same_code),) if same_code else ()
    return (*label, *_requirements(upstream, settings).notices)


def _label(variant: Variant, upstream: Upstream, same_code: SameCode) -> str:
    return f"{variant.name} of vLLM {upstream.release} has the same machine code as {same_code.same_code_as}: {same_code.why}"


def _refused(wanted: Wanted, same_code: SameCode) -> VariantNotInReleaseError:
    what = f"vLLM {wanted.upstream.release} cannot be built as {wanted.variant.name}"
    why = f"it would have the same machine code as {same_code.same_code_as}: {same_code.why}"
    remedy = f'build --variant {same_code.same_code_as}, or allow the label with wheel.same_code_variants = "label"'
    return VariantNotInReleaseError(what, why=why, remedy=remedy)


def _left_out(every: Sequence[Requirements]) -> dict[str, list[str]]:
    return {
        "dropped_requirements": [line for part in every for line in part.dropped],
        "notices": list(dict.fromkeys(line for part in every for line in part.notices)),
    }


def _extras(tree: Tree, upstream: Upstream, settings: Settings) -> dict[str, Requirements]:
    return {
        name: rewritten(lines, settings=settings, pythons=upstream.pythons, release=upstream.release)
        for name, lines in optional_dependencies(tree).items()
    }


def _requirements(upstream: Upstream, settings: Settings) -> Requirements:
    lines = upstream.runtime_requirements
    return rewritten(lines, settings=settings, pythons=upstream.pythons, release=upstream.release)


def _diff(tree: Tree, texts: Mapping[str, str]) -> str:
    parts: list[str] = []
    for path, text in sorted(texts.items()):
        before = f"a/{path}" if tree.original(path) else "/dev/null"
        old, new = tree.original(path).splitlines(), text.splitlines()
        parts.extend(difflib.unified_diff(old, new, before, f"b/{path}", lineterm=""))
    return "".join(f"{line}\n" for line in parts)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


ACTIONS: Mapping[str, Action] = {"metadata.write": write}
