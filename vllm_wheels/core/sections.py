"""What a section of the settings is, and the sections about work that several machines share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A table of the settings file: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Keys that settings files of earlier versions have, and what they are called now."""

    @model_validator(mode="before")
    @classmethod
    def _take_renamed(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {cls.RENAMED.get(name, name): value for name, value in given.items()}


class RemoteSettings(Section):
    """A remote store of artifacts, behind the one on this machine."""

    url: str = Field(
        description="s3://bucket/prefix?endpoint=...&region=..., gs://bucket/prefix, az://container/prefix, or"
        " https://host/folder, which is only read"
    )
    read: bool = Field(default=True, description="take from it what this machine would have to make")
    push: bool = Field(default=False, description="give it what this machine made; needs store.signing_key")
    timeout_seconds: float = Field(10.0, gt=0, description="how long it may be silent")
    transfer_seconds: float = Field(600.0, gt=0, description="how long one artifact may take")


class StoreSettings(Section):
    """Remote stores of artifacts that several machines share, and whom they trust."""

    remotes: dict[str, RemoteSettings] = Field(
        default_factory=dict, description="remote stores by name, asked in the order in which they are written"
    )
    trusted_keys: dict[str, str] = Field(
        default_factory=dict, description="name of a key to its public half; artifacts of others are refused"
    )
    signing_key: Path | None = Field(
        None, description="private key with which this machine signs what it pushes; vllm-wheels store keygen makes it"
    )


class WorkerSettings(Section):
    """Where the steps of Dagster's runs are carried out; a build of the command line is made where it is typed."""

    engine: Literal["here", "celery", "kubernetes"] = Field(
        "here", description="here: on the machine of the run; celery: on workers; kubernetes: in a pod per step"
    )
    broker: str | None = Field(None, description="queue of the workers: redis://queue:6379, or amqp://queue")
    requeue_seconds: int = Field(
        7200, gt=0, description="with Redis: when a step of a worker that vanished is given to another; longer than any"
    )
