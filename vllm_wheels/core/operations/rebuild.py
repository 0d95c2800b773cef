"""Makes a wheel again from its statement, in a store of its own, and compares the bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vllm_wheels.core.artifacts.torch_env.locking import Lock
from vllm_wheels.core.artifacts.torch_env.planning import Locking
from vllm_wheels.core.artifacts.wheel.statement import BUILD_TYPE, LOCKS, SECTIONS, dependencies, differences
from vllm_wheels.core.builders.compiler_cache import folder_name
from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import PlanContext, Rule
from vllm_wheels.core.errors import RebuildError
from vllm_wheels.core.formats.wheel_name import WHEEL_SUFFIX, sidecar, wheel_in
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.operations.builds import build_graph, rules
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target

STATEMENT = "intoto.json"


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A wheel that was made again with the same bytes."""

    path: Path
    sha256: str


def pinned(rule: Rule, text: str) -> Rule:
    """The rule of an environment with the lock of a statement, whatever the index offers now."""

    def plan(context: PlanContext) -> Plan:
        drawn = rule.plan(context)
        steps = tuple(
            replace(step, arguments=replace(step.arguments, text=text)) if isinstance(step.arguments, Locking) else step
            for step in drawn.steps
        )
        return replace(drawn, inputs={**drawn.inputs, "lock": Lock.parse(text).sha256}, steps=steps)

    return replace(rule, plan=plan)


def read_statement(file: Path) -> dict[str, Any]:
    """The statement in a file, or beside a wheel; RebuildError where there is none, or one of another kind."""
    path = sidecar(file, STATEMENT) if file.suffix == WHEEL_SUFFIX else file
    remedy = "give the .intoto.json that was put beside the wheel"
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        kind = found["predicate"]["buildDefinition"]["buildType"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{path} is not a statement of a build"
        raise RebuildError(what, why=f"{type(error).__name__}: {error}", remedy=remedy) from error
    if kind != BUILD_TYPE:
        what = f"{path} is of another kind of build"
        raise RebuildError(what, why=f"its buildType is {kind}, this version knows {BUILD_TYPE}", remedy=remedy)
    return found


def rebuild(
    statement: Mapping[str, Any],
    settings: Settings,
    *,
    say: Callable[[str], None],
    echo: Callable[[str], None] | None,
    compiler_cache: bool = False,
) -> Rebuilt:
    """Makes a wheel again and compares it with the one that the statement speaks of.

    Nothing is taken from the store: everything is made in a folder of its own below the state folder, which is kept
    only if the wheel differs.

    The user's settings say where indexes are, the statement says everything else. With ``compiler_cache`` the
    installation's cache is used, which proves everything but the compiler.

    Raises:
        RebuildError: an input is not what it was, or the bytes differ.
        VllmWheelsError: making an artifact failed.
    """
    wanted = statement["subject"][0]["digest"]["sha256"]
    folder = settings.state_folder / "rebuild" / wanted[:12]
    shutil.rmtree(folder, ignore_errors=True)
    own = _settings(statement["predicate"]["buildDefinition"], settings, folder)
    if compiler_cache:
        _share_compiler_cache(settings.state_folder / folder_name(own), folder)
    else:
        own = own.model_copy(update={"builder": own.builder.model_copy(update={"cache_remote": None})})
    wheel = _same_bytes(_made_again(statement, own, say=say, echo=echo), wanted)
    kept = Path(shutil.copyfile(wheel, folder.with_name(wheel.name)))
    shutil.rmtree(folder)
    return Rebuilt(path=kept, sha256=wanted)


def _made_again(
    statement: Mapping[str, Any], settings: Settings, *, say: Callable[[str], None], echo: Callable[[str], None] | None
) -> Path:
    definition: dict[str, Any] = statement["predicate"]["buildDefinition"]
    stated, given = definition["resolvedDependencies"], definition["externalParameters"]
    locks = {each["name"]: each["annotations"]["lock"] for each in stated if each["name"] in LOCKS}
    own_rules = {kind: pinned(rule, locks[kind]) if kind in locks else rule for kind, rule in rules().items()}
    builds = build_graph(settings, say=say, echo=echo, own_rules=own_rules)
    target = Target(release=given["release"], python=given["python"], variant=given["variant"])
    closure = builds.closure("wheel")
    before = [kind for kind in closure if "compiled" not in {kind, *builds.closure(kind)}]
    artifacts = {kind: builds.ensure(kind, target) for kind in before}
    if lines := differences(stated, _plain(dependencies(artifacts, builds.builder.identity()))):
        what = f"{statement['subject'][0]['name']} cannot be made again: its inputs are not the same"
        raise RebuildError(what, why="; ".join(lines), remedy="bring back what it was made of")
    return wheel_in(builds.ensure("wheel", target).folder)


def _share_compiler_cache(cache: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    cache.mkdir(parents=True, exist_ok=True)
    (folder / cache.name).symlink_to(cache)


def _same_bytes(wheel: Path, wanted: str) -> Path:
    found = sha256_of(wheel)
    if found != wanted:
        what = f"{wheel.name} made again has other bytes"
        why = f"sha256 was {wanted[:12]}, is {found[:12]}, though all inputs are the same"
        raise RebuildError(what, why=why, remedy=f"compare with {wheel}: diffoscope tells what differs")
    return wheel


def _plain(value: Any) -> Any:
    # As the statement went through JSON, so that tuples equal lists.
    return json.loads(json.dumps(value))


def _settings(definition: Mapping[str, Any], settings: Settings, folder: Path) -> Settings:
    given = definition["externalParameters"]["settings"]
    try:
        sections = {
            name: type(getattr(settings, name)).model_validate({**getattr(settings, name).model_dump(), **given[name]})
            for name in SECTIONS
        }
    except (ValidationError, KeyError) as error:
        what = "the statement's settings cannot be used"
        raise RebuildError(
            what, why=str(error).splitlines()[0], remedy="rebuild with the version that made it"
        ) from error
    return settings.model_copy(update={**sections, "substitutes": given["substitutes"], "state_folder": folder})
