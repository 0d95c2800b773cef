"""What runs by itself: the rebuild job, its nightly schedule, the sensors; what they do is in modules of their own."""

# No `from __future__ import annotations`: Dagster reads the annotations of these functions. Their bodies import what
# they need when they run, so that whoever only looks at the definitions does not wait for it.
# ruff: noqa: PLC0415
import dagster as dg

from vllm_wheels.core.settings import Settings
from vllm_wheels.defs import workers
from vllm_wheels.defs.internals import AssetJob
from vllm_wheels.defs.keys import all_keys

STEPS_AT_ONCE = 4
"""Variants side by side; a step that compiles, or tries a wheel, waits for its place (``core.host.slots``)."""

OVERVIEW_SECONDS = 60

# Lower-case, so that Dagster's own implicit job sorts before it (dagster.md, "Running").
REBUILD = "rebuild"


def rebuild(settings: Settings) -> AssetJob:
    """The job of everything that is made without anybody asking."""
    side_by_side = dg.multiprocess_executor.configured({"max_concurrent": STEPS_AT_ONCE}, name="side_by_side")
    return dg.define_asset_job(
        REBUILD,
        selection=dg.AssetSelection.assets(*all_keys()).without_checks(),
        description="Makes the chosen artifacts of one release and Python, variants side by side",
        executor_def=workers.executor(settings, here=side_by_side),
    )


def schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The nightly rebuild, at the time that the settings name."""
    wishes = settings.automation
    status = dg.DefaultScheduleStatus.RUNNING if wishes.enabled else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(
        job_name=REBUILD,
        cron_schedule=wishes.nightly,
        execution_timezone=wishes.timezone,
        default_status=status,
        description="Looks at the inputs outside, then requests exactly what is stale, partition by partition",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        from vllm_wheels.defs import schedules

        return schedules.nightly(context)

    return [nightly]


def sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors of new releases and of changed inputs."""
    status = dg.DefaultSensorStatus.RUNNING if settings.automation.enabled else dg.DefaultSensorStatus.STOPPED
    seconds = settings.automation.watch_seconds

    @dg.sensor(
        job_name=REBUILD,
        minimum_interval_seconds=seconds,
        default_status=status,
        description="Registers new releases of vLLM and requests their wheels; at first only the newest",
    )
    def new_releases(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from vllm_wheels.defs import sensors

        return sensors.new_releases(context)

    @dg.sensor(
        minimum_interval_seconds=seconds,
        default_status=status,
        description="Observes what moved under a fixed name and so marks what is stale; compiles nothing by day",
    )
    def moved_inputs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from vllm_wheels.defs import sensors

        return sensors.moved_inputs(context)

    return [new_releases, moved_inputs]


def overviews() -> dg.SensorDefinition:
    """The sensor of the page for the morning; it makes nothing, and so runs from the start."""

    @dg.sensor(
        minimum_interval_seconds=OVERVIEW_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports the matrix of all wheels whenever something changed",
    )
    def overview(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from vllm_wheels.defs import overview

        return overview.look(context)

    return overview


def notifications(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors that tell people; on from the start where the settings name a way of telling."""
    wanted = settings.notification.webhook_variable or settings.notification.mail_to
    status = dg.DefaultSensorStatus.RUNNING if wanted else dg.DefaultSensorStatus.STOPPED

    @dg.run_failure_sensor(default_status=status, description="Tells people of failed runs")
    def tell_of_failures(context: dg.RunFailureSensorContext) -> None:
        from vllm_wheels.defs import notifications

        notifications.tell_of_failure(context)

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        default_status=status,
        description="Tells people of published releases, of what went well again, and of what could not be judged",
    )
    def tell_of_releases(context: dg.RunStatusSensorContext) -> None:
        from vllm_wheels.defs import notifications

        notifications.tell_of_success(context)

    return [tell_of_failures, tell_of_releases]
