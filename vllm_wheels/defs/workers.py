"""Where steps run: here, on Celery's workers, or in a pod each; and what a step asks of its machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from vllm_wheels.core.errors import MachineError, SettingsError
from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.operations.hardware import floor_above_lowest, queue, release_queue

if TYPE_CHECKING:
    from vllm_wheels.core.sections import WorkerSettings
    from vllm_wheels.core.settings import Settings

APP = "vllm_wheels.defs.celery_app"
FEATURE = "feature.node.kubernetes.io/cpu-cpuid."
"""Labels that Node Feature Discovery gives to the nodes of a cluster, by CPUID's names of features."""

RESTART_ATTEMPTS = 40

EXTRA = "install vllm-wheels[deploy]"


def executor(settings: Settings, *, here: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    """What carries out the steps of a run, by the settings.

    Raises:
        SettingsError: Celery's queue is not named.
        MachineError: what the settings ask for is not installed.
    """
    try:
        match settings.workers.engine:
            case "celery":
                from dagster_celery import celery_executor  # noqa: PLC0415 - an extra

                return celery_executor.configured(celery_options(settings.workers), name="workers")
            case "kubernetes":
                from dagster_k8s import k8s_job_executor  # noqa: PLC0415 - an extra

                return k8s_job_executor
    except ModuleNotFoundError as error:
        what = f"steps cannot run as workers.engine = {settings.workers.engine} says"
        raise MachineError(what, why=f"there is no module {error.name}", remedy=EXTRA) from error
    return here


def celery_options(workers: WorkerSettings) -> dict[str, Any]:
    """Configuration of Celery, the same for those who send steps and those who carry them out.

    A step is taken off its queue when it has ended, so that one whose worker died is given to another. A queue that is
    restarted is waited for: with pauses of 10 s at most, ``RESTART_ATTEMPTS`` are some minutes.
    """
    if not workers.broker:
        what = "there is no queue for the workers"
        raise SettingsError(what, why="workers.broker names none", remedy="name one, such as redis://queue:6379")
    backend = workers.broker if workers.broker.startswith("redis") else "rpc://"
    source = {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "broker_connection_retry_on_startup": True,
        "result_backend_always_retry": True,
        "result_backend_max_retries": RESTART_ATTEMPTS,
        "task_publish_retry_policy": {"max_retries": RESTART_ATTEMPTS, "interval_max": 10},
        "broker_transport_options": {"visibility_timeout": workers.requeue_seconds},
    }
    return {"broker": workers.broker, "backend": backend, "config_source": source}


def tags(kind: str, name: str | None) -> dict[str, Any]:
    """What a step asks of its machine, as the engines read it: a queue of Celery, resources and node of Kubernetes."""
    rule = rules().get(kind)
    if rule is None:
        return {"dagster-celery/queue": release_queue()}
    asked = {"dagster-celery/queue": queue(rule, name)}
    hardware = rule.hardware
    if not hardware.gigabytes:
        return asked
    memory, disk = (f"{int(each * 1000)}M" for each in (hardware.gigabytes, hardware.disk_gigabytes))
    requests = {"cpu": str(hardware.cores), "memory": memory, "ephemeral-storage": disk}
    pod: dict[str, Any] = {"container_config": {"resources": {"requests": requests}}}
    if hardware.processor and name and (labels := node_labels(name)):
        pod["pod_spec_config"] = {"node_selector": labels}
    return {**asked, "dagster-k8s/config": pod}


def node_labels(name: str) -> dict[str, str]:
    """Labels of the nodes on which a variant's wheel can be tried."""
    return {f"{FEATURE}{flag.replace('_', '').upper()}": "true" for flag in floor_above_lowest(name)}


def worker_argv(queues: list[str], name: str) -> tuple[str, ...]:
    """The command line of a worker, which carries out one step at a time."""
    listened = ("--queues", ",".join(queues), "--hostname", f"{name}@%h")
    how = ("--concurrency", "1", "--loglevel", "INFO", "--without-gossip", "--without-mingle")
    return (sys.executable, "-m", "celery", "--app", APP, "worker", *listened, *how)


def environment(settings: Settings) -> Mapping[str, str]:
    """Variables of a worker: its store is this machine's."""
    return {
        "VLLM_WHEELS_STATE_FOLDER": str(settings.state_folder),
        "VLLM_WHEELS_OUTPUT_FOLDER": str(settings.output_folder),
    }
