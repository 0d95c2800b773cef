"""Connects to the container engine (DOCKER_HOST, else the default socket) and removes containers of killed runs."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests
from docker.errors import APIError, DockerException
from docker.models.containers import Container
from docker.utils import parse_host

from vllm_wheels.core.errors import EngineUnreachableError
from vllm_wheels.core.host.ownership import fate

ANSWER_SECONDS = 120
"""How long the engine may take for one answer; streams of output have no such limit."""

OWNER = "vllm-wheels.owner"
"""Label of a container: the process that waits for it."""

GONE = (404, 409)
"""Answers of the engine to killing or removing what has ended, is gone, or is being removed by somebody else."""


UNIX = "http+unix://"
"""How the SDK writes the address of a socket in the file system."""


@contextmanager
def engine() -> Iterator[docker.DockerClient]:
    """A connection to the engine; EngineUnreachableError where nothing answers, or stops answering."""
    try:
        _require_listener()
        client = docker.from_env(timeout=ANSWER_SECONDS)
    except (DockerException, OSError) as error:
        raise _unreachable(error) from error
    try:
        yield client
    except requests.exceptions.RequestException as error:
        if isinstance(error, APIError):
            raise
        raise _unreachable(error) from error
    finally:
        client.close()


def _require_listener() -> None:
    # The SDK leaks a socket for each attempt to reach an engine that is not there, and wraps the reason four times.
    address = parse_host(os.environ.get("DOCKER_HOST"))
    if address.startswith(UNIX):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(address.removeprefix(UNIX))


def answers() -> bool:
    """Does an engine answer?"""
    try:
        with engine() as client:
            client.ping()
    except EngineUnreachableError:
        return False
    return True


def sweep(client: docker.DockerClient) -> int:
    """Removes the containers whose owner was killed before it could; returns how many there were."""
    found = client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True)
    orphans = [container for container in found if _is_orphan(container)]
    for container in orphans:
        discard(container)
    return len(orphans)


def kill(container: Container) -> None:
    """Kills a container; one that has ended already is fine."""
    try:
        container.kill()
    except APIError as error:
        if error.status_code not in GONE:
            raise


def discard(container: Container) -> None:
    """Kills and removes a container; one that is gone already is fine."""
    try:
        container.remove(force=True, v=True)
    except APIError as error:
        if error.status_code not in GONE:
            raise


def explanation(error: Exception) -> str:
    """What the engine said, on one line."""
    text = (error.explanation if isinstance(error, APIError) else None) or str(error)
    if isinstance(error, FileNotFoundError):
        text = f"there is no socket at {parse_host(os.environ.get('DOCKER_HOST')).removeprefix(UNIX)}"
    return " ".join(str(text).split())


def _is_orphan(container: Container) -> bool:
    became = fate(container.labels[OWNER])
    if became == "other boot":
        # Another boot of this machine, or another machine with the same engine: only what runs may still have an owner.
        return container.status in {"exited", "dead"}
    return became == "gone"


def _unreachable(error: Exception) -> EngineUnreachableError:
    address = os.environ.get("DOCKER_HOST")
    what = f"no container engine answers at {address}" if address else "no container engine answers"
    remedy = "vllm-wheels set-up (installs and starts one), or builder.kind = local"
    why = explanation(error)
    if "Permission" in why:
        remedy = f"sudo usermod -aG docker {getpass.getuser()}, log in again; or builder.kind = local"
    elif address:
        remedy = "correct or unset DOCKER_HOST, or start that engine; or builder.kind = local"
    return EngineUnreachableError(what, why=why, remedy=remedy)
