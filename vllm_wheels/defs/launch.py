"""Runs a part of the graph in the calling process, against the same instance as the web UI."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from vllm_wheels.core import errors
from vllm_wheels.core.engine.run_cache import remembering
from vllm_wheels.core.errors import BuildError, VllmWheelsError
from vllm_wheels.defs import abandoned, inputs, internals, tags
from vllm_wheels.defs.assets import all_assets
from vllm_wheels.defs.keys import JOB, key
from vllm_wheels.defs.resources import BuildMode, BuildOptions
from vllm_wheels.defs.sqlite import kept_open

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.target import Target

INTERRUPTIONS = frozenset({"DagsterExecutionInterruptedError", "KeyboardInterrupt"})
"""Names of the errors in which Dagster wraps an interruption of a step."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run: its name in the UI, and an error for each failed step."""

    run_id: str
    failures: tuple[VllmWheelsError, ...]


def launch(
    target: Target,
    assets: Sequence[dg.AssetKey],
    *,
    instance: dg.DagsterInstance,
    options: BuildOptions,
    dry_run: bool,
    say: Callable[[str], None],
    why: Mapping[dg.AssetKey, str] | None = None,
) -> Outcome:
    """Materializes assets of one partition, and what they need, in this process; ``why`` is a reason for each.

    Raises:
        KeyboardInterrupt: the user interrupted; the run is recorded as failed.
    """
    # Planned checks would hide the verdicts of earlier runs while this one goes on.
    chosen = dg.AssetSelection.assets(*assets).without_checks()
    job = "_".join([JOB, *dict.fromkeys(asset.path[1] for asset in assets if len(asset.path) > 1)])
    definitions = dg.Definitions(
        assets=[*inputs.specs(), *all_assets()],
        resources={"build_mode": BuildMode(dry_run=dry_run), "build_options": options},
        jobs=[dg.define_asset_job(job, selection=chosen, executor_def=dg.in_process_executor)],
        loggers={"milestones": _logger(say)},
    )
    with kept_open(), remembering():
        abandoned.settle(instance, say)
        result = definitions.resolve_job_def(job).execute_in_process(
            run_config={"loggers": {"milestones": {}}},
            instance=instance,
            partition_key=target.partition,
            tags={**tags.of(target, assets), **tags.reasons(why or {})},
            raise_on_error=False,
        )
    failed = [event for event in result.all_node_events if event.is_step_failure]
    if any(_was_interrupted(event) for event in failed):
        raise KeyboardInterrupt
    return Outcome(run_id=result.run_id, failures=tuple(_error(event) for event in failed))


def is_recorded(target: Target, kinds: Sequence[str], *, instance: dg.DagsterInstance, builds: BuildGraph) -> bool:
    """Whether the newest materializations are of just the artifacts that the store has, all of which are there.

    A run would then say it all again: 48 verdicts of each wheel among it, which takes longer than all else.
    """
    artifacts = ((kind, builds.ensure(kind, target)) for kind in kinds)
    return all(
        internals.latest_key(instance, key(kind, target.variant), target.partition) == artifact.key
        for kind, artifact in artifacts
    )


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    # Where the interruption came upon a library's code, that library may have wrapped it.
    found = event.step_failure_data.error
    while found is not None and found.cls_name not in INTERRUPTIONS:
        found = found.cause or found.context
    return found is not None


def _error(event: dg.DagsterEvent) -> VllmWheelsError:
    data = event.step_failure_data.user_failure_data
    if data is None:
        found = event.step_failure_data.error
        while found is not None and found.cause is not None:
            found = found.cause
        why = found.message.strip().splitlines()[0] if found else "Dagster gave no reason"
        remedy = "report this as a defect, with the run's log from the web UI"
        return BuildError(f"the step {event.step_key} failed", why=why, remedy=remedy)
    entries = {name: value.value for name, value in data.metadata.items()}
    kind = _kinds()[int(str(entries["exit_code"]))]
    return kind(str(entries["what"]), why=str(entries["why"]), remedy=str(entries["remedy"]))


def _kinds() -> dict[int, type[VllmWheelsError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VllmWheelsError)]
    return {kind.exit_code: kind for kind in found}


class _Milestones(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        if not meta.get("dagster_event") and meta.get("orig_message"):
            self.say(str(meta["orig_message"]))


def _logger(say: Callable[[str], None]) -> dg.LoggerDefinition:
    @dg.logger
    def milestones(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("vllm-wheels", logging.INFO)  # noqa: LOG001 - Dagster wants one of its own per run
        logger.addHandler(_Milestones(say))
        return logger

    return milestones
