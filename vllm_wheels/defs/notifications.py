"""What people are told of failed runs and of published releases."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.operations.notify import Message, notify
from vllm_wheels.defs.keys import RELEASE
from vllm_wheels.defs.partitions import PARTITION_TAG

LINES = 20
"""Of an error's text that go into a message."""


def tell_of_failure(context: dg.RunFailureSensorContext) -> None:
    """Tells people of a failed run."""
    current = configuration.load().notification
    notify(failure(context, url=current.ui_url), current)


def tell_of_releases(context: dg.RunStatusSensorContext) -> None:
    """Tells people of the releases that a run published."""
    current = configuration.load().notification
    for message in publications(context, url=current.ui_url):
        notify(message, current)


def failure(context: dg.RunFailureSensorContext, *, url: str) -> Message:
    """What a failed run says: each failed step with its reason."""
    reasons = []
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        said = data.user_failure_data.description if data.user_failure_data else data.error and data.error.message
        reasons.append(f"{event.step_key}: {said or 'no reason given'}")
    text = "\n".join(reasons) or context.failure_event.message or ""
    where = _partition(context.dagster_run)
    return Message(
        event="failed",
        title=f"run failed: {context.dagster_run.job_name} {where}".strip(),
        text="\n".join(text.splitlines()[:LINES]),
        fields=_fields(context.dagster_run),
        link=f"{url}/runs/{context.dagster_run.run_id}",
    )


def publications(context: dg.RunStatusSensorContext, *, url: str) -> Iterator[Message]:
    """A message per release asset that a run materialized."""
    run = context.dagster_run
    events = context.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    for entry in events:
        made = entry.asset_materialization
        if made is None or made.asset_key.path[0] != RELEASE:
            continue
        facts = {name: str(value.value) for name, value in made.metadata.items() if isinstance(value.value, str | int)}
        title = f"published: {'/'.join(made.asset_key.path)} {made.partition or ''}".strip()
        yield Message(event="published", title=title, fields={**_fields(run), **facts}, link=f"{url}/runs/{run.run_id}")


def _fields(run: dg.DagsterRun) -> dict[str, str]:
    return {"run": run.run_id, "job": run.job_name, "partition": _partition(run)}


def _partition(run: dg.DagsterRun) -> str:
    return run.tags.get(PARTITION_TAG, "")
