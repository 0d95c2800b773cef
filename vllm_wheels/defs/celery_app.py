"""Celery's application of the workers: ``celery --app vllm_wheels.defs.celery_app worker``."""

from __future__ import annotations

from dagster_celery.executor import CeleryExecutor
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_task

from vllm_wheels.core.settings import load
from vllm_wheels.defs.workers import celery_options

app = make_app(CeleryExecutor.for_cli(**celery_options(load().workers)).app_args())  # type: ignore[no-untyped-call]
execute_plan = create_task(app)  # type: ignore[no-untyped-call]
