"""What people are told of failed runs and of published releases."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.operations.notify import Message, notify
from vllm_wheels.defs import checks, history, internals
from vllm_wheels.defs.keys import RELEASE
from vllm_wheels.defs.partitions import PARTITION_TAG

LINES = 20
"""Of an error's text that go into a message."""


def tell_of_failure(context: dg.RunFailureSensorContext) -> None:
    """Tells people of a failed run, once for each failure, and of what went well again in it."""
    current = configuration.load().notification
    for message in (failure(context, url=current.ui_url), mended(context, url=current.ui_url)):
        if message:
            notify(message, current)


def tell_of_success(context: dg.RunStatusSensorContext) -> None:
    """Tells people of the releases that a run published, of what went well again, and of what was left open."""
    current = configuration.load().notification
    for message in (
        *publications(context, url=current.ui_url),
        mended(context, url=current.ui_url),
        *left_open(context, url=current.ui_url),
    ):
        if message:
            notify(message, current)


def failure(context: dg.RunFailureSensorContext, *, url: str | None) -> Message | None:
    """What a failed run says: each failed step with its reason; None where people know all of that."""
    run, events = context.dagster_run, list(context.get_step_failure_events())
    reasons = {str(event.step_key): history.reason(event) for event in events if not history.is_repeated(event)}
    news = {step: said for step, said in reasons.items() if not _known(context.instance, run, step, said)}
    if events and not news:
        return None
    text = "\n".join(f"{step}: {said}" for step, said in news.items()) or context.failure_event.message or ""
    return Message(
        event="failed",
        title=f"run failed: {run.job_name} {_partition(run)}".strip(),
        text="\n".join(text.splitlines()[:LINES]),
        fields=_fields(run),
        link=_link(url, run),
    )


def mended(context: dg.RunStatusSensorContext, *, url: str | None) -> Message | None:
    """Names the steps of a run that failed the last time and went well now; None where there are none."""
    run, instance = context.dagster_run, context.instance
    succeeded = [step for step, said in history.steps(instance, run).items() if said is None]
    again = [step for step in succeeded if history.before(instance, run, step)]
    if not again:
        return None
    title = f"went well again: {', '.join(again)} {_partition(run)}".strip()
    return Message(event="mended", title=title, fields=_fields(run), link=_link(url, run))


def left_open(context: dg.RunStatusSensorContext, *, url: str | None) -> Iterator[Message]:
    """A message per wheel that a run could not judge, unless the same was open before."""
    run, instance = context.dagster_run, context.instance
    logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    made = {entry.asset_materialization.asset_key for entry in logs if entry.asset_materialization}
    found: dict[dg.AssetKey, list[dg.AssetCheckEvaluation]] = {}
    for evaluation in internals.evaluations(instance, run.run_id):
        if evaluation.asset_key not in made and checks.is_open(evaluation):
            found.setdefault(evaluation.asset_key, []).append(evaluation)
    for asset, open_ones in found.items():
        if any(checks.is_open(each) for each in internals.evaluations_before(instance, open_ones[0])):
            continue
        yield Message(
            event="open",
            title=f"could not be judged: {asset.to_user_string()} {_partition(run)}".strip(),
            text="\n".join(f"{each.check_name}: {each.description}" for each in open_ones[:LINES]),
            fields=_fields(run),
            link=_link(url, run),
        )


def _known(instance: dg.DagsterInstance, run: dg.DagsterRun, step: str, said: str) -> bool:
    earlier = history.before(instance, run, step)
    return earlier is not None and earlier.splitlines()[:1] == said.splitlines()[:1]


def publications(context: dg.RunStatusSensorContext, *, url: str | None) -> Iterator[Message]:
    """A message per release asset that a run materialized."""
    run = context.dagster_run
    events = context.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    for entry in events:
        made = entry.asset_materialization
        if made is None or made.asset_key.path[0] != RELEASE:
            continue
        facts = {name: str(value.value) for name, value in made.metadata.items() if isinstance(value.value, str | int)}
        title = f"published: {'/'.join(made.asset_key.path)} {made.partition or ''}".strip()
        yield Message(event="published", title=title, fields={**_fields(run), **facts}, link=_link(url, run))


def _link(url: str | None, run: dg.DagsterRun) -> str:
    """The run's page; none where nobody knows the address of the web UI."""
    return f"{url}/runs/{run.run_id}" if url else ""


def _fields(run: dg.DagsterRun) -> dict[str, str]:
    return {"run": run.run_id, "job": run.job_name, "partition": _partition(run)}


def _partition(run: dg.DagsterRun) -> str:
    return run.tags.get(PARTITION_TAG, "")
