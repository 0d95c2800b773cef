"""Plans what the patches make of a release for a variant: build files, which decide what is compiled, and Python."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vllm_wheels.core.artifacts.source.planning import upstream_of
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step, digest
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.errors import VariantNotInReleaseError
from vllm_wheels.core.host.commands import STAGE
from vllm_wheels.core.names import distributions
from vllm_wheels.core.patches.applying import patched
from vllm_wheels.core.patches.labels import lacking, same_code_in
from vllm_wheels.core.patches.patch import Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import Upstream
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import SameCode, Variant, lowest, platform_for, variant, variants

KIND, CHANGED = "patched", "changed"
PACKAGE = "vllm/"
READ_FROM_UPSTREAM = ("release", "family", "torch", "pythons")


@dataclass(frozen=True, kw_only=True)
class Patching:
    """Arguments of actions that patch a tree; there is no upstream while the source is missing."""

    tree: str
    upstream: Upstream | None
    variant: str


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``patched``.

    Raises:
        UnknownVariantError: the target's variant does not exist.
        MachineError: it is not for this machine's platform.
        VariantNotInReleaseError: it gains nothing in this release, and the settings refuse such wheels.
    """
    chosen = context.variant
    platform_for(chosen)
    upstream = upstream_of(context)
    notices: tuple[str, ...] = ()
    inputs: dict[str, Any] = {}
    if upstream:
        wanted = wanted_for(context.known["source"].folder / "tree", upstream, chosen, context.settings)
        notices = same_code_notices(wanted)
        inputs = {
            "upstream": of_upstream(upstream, READ_FROM_UPSTREAM),
            "distributions": distributions(context.settings),
            "unified_baseline": context.settings.builder.unified_baseline,
            "licence": context.settings.wheel.licence,
        }
    step = Step(
        title=f"patch vLLM {context.target.release} for {chosen.name}",
        action=write,
        arguments=(arguments := patching(context, upstream)),
        reads=(arguments.tree,),
        writes=(f"{STAGE}/{CHANGED}",),
        seconds=2,
    )
    return Plan(artifact=KIND, target=context.target, inputs=inputs, steps=(step,), notices=notices)


def patching(context: PlanContext, upstream: Upstream | None) -> Patching:
    """The arguments of an action that patches the source of a context."""
    source = context.known.get("source")
    tree = str(source.folder / "tree") if source else "<tree of source, not made yet>"
    return Patching(tree=tree, upstream=upstream, variant=context.variant.name)


def of_upstream(upstream: Upstream, names: tuple[str, ...]) -> dict[str, Any]:
    """The demands of a tree that a plan names as inputs."""
    demands = asdict(upstream)
    return {name: demands[name] for name in names}


def write(context: ActionContext, arguments: Patching) -> Made:
    """Writes the files that the patches change into the stage.

    Returns:
        Facts ``notices`` (what the user must be told) and ``sha256`` (of all that was written).

    Raises:
        PatchError: a patch did not take.
        VariantNotInReleaseError: the release cannot honour the variant.
    """
    tree, upstream = context.path(arguments.tree), arguments.upstream
    assert upstream is not None  # noqa: S101 - a plan without it has no key, and is not carried out
    made = patched(tree, wanted_for(tree, upstream, variant(arguments.variant), context.settings))
    files = changed_of(made)
    write_files(context.stage / CHANGED, files)
    return Made(facts={"notices": list(made.notices), "sha256": hash_of(files)})


def read_back(folder: Path, root: Path, release: str, notices: Iterable[str]) -> Tree:
    """The tree of a release as the patches left it, from the folder of the artifact."""
    changed = folder / CHANGED
    files = (path for path in sorted(changed.rglob("*")) if path.is_file())
    texts = {path.relative_to(changed).as_posix(): path.read_bytes().decode() for path in files}
    return Tree(root=root, release=release, changed=texts, notices=dict.fromkeys(notices))


def hash_of(files: Mapping[str, str]) -> str:
    """Hash of texts by path."""
    return digest({path: sha256(text) for path, text in files.items()})


def native_of(tree: Tree) -> dict[str, str]:
    """The changed files that decide what is compiled, by path."""
    return {path: text for path, text in changed_of(tree).items() if not path.startswith(PACKAGE)}


def changed_of(tree: Tree) -> dict[str, str]:
    """The files that patches changed, by path."""
    return {path: text for path, text in sorted(tree.changed.items()) if text != tree.original(path)}


def wanted_for(tree: Path, upstream: Upstream, variant: Variant, settings: Settings) -> Wanted:
    """What patches are to make of a tree; VariantNotInReleaseError where that is nothing and the settings refuse it."""
    whole = settings.builder.unified_baseline and upstream.family == "unified" and variant == lowest()
    same_code = None if whole else same_code_in(variant, tree)
    if same_code and settings.wheel.same_code_variants == "refuse":
        what = f"vLLM {upstream.release} cannot be built as {variant.name}"
        why = f"it would have the same machine code as {same_code.same_code_as}: {same_code.why}"
        remedy = f'build --variant {same_code.same_code_as}, or allow it with wheel.same_code_variants = "label"'
        raise VariantNotInReleaseError(what, why=why, remedy=remedy)
    code = variants()[same_code.same_code_as] if same_code else variant
    return Wanted(
        upstream=upstream,
        variant=variant,
        distributions=distributions(settings),
        same_code=same_code,
        lacking=() if whole else lacking(code, tree),
        whole=whole,
        licence=settings.wheel.licence,
    )


def same_code_notices(wanted: Wanted) -> tuple[str, ...]:
    """What the user must be told of a variant that gains nothing in a release."""
    same = (_label(wanted, wanted.same_code),) if wanted.same_code else ()
    name, release = wanted.variant.name, wanted.upstream.release
    return same + tuple(f"{name} of vLLM {release} has no {each.promise}: {each.why}" for each in wanted.lacking)


def _label(wanted: Wanted, same_code: SameCode) -> str:
    name, release = wanted.variant.name, wanted.upstream.release
    return f"{name} of vLLM {release} has the same machine code as {same_code.same_code_as}: {same_code.why}"


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes texts below a folder, which is made."""
    folder.mkdir()
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # As bytes, so that line ends stay as upstream wrote them.
        path.write_bytes(text.encode())


def sha256(text: str) -> str:
    """Hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
