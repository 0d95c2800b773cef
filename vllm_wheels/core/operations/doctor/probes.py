"""The table of checks of the machine; they run side by side, each with a time limit, and are shown in its order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vllm_wheels.core.builders import docker_engine as engine
from vllm_wheels.core.errors import EngineUnreachableError, StepTimeoutError, VllmWheelsError
from vllm_wheels.core.host.machine import distribution
from vllm_wheels.core.host.secrets import Secrets
from vllm_wheels.core.operations.doctor import compiler_probes, machine_probes, network_probes
from vllm_wheels.core.operations.doctor.findings import Finding, Scene, lacking

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings

ANSWER_SECONDS = 10.0
"""Limit of one question to a server or a program."""

LIMIT_SECONDS = 60.0
"""Limit of everything together, for a machine that is busy; a quiet one answers in a few seconds."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One check of the machine; name and remedy are those of its finding, should it not come to one in time."""

    name: str
    ask: Callable[[Scene], Iterable[Finding]]
    remedy: str = "see what hangs, and ask again"


PROBES = (
    Probe(name="system", ask=machine_probes.system),
    Probe(name="python", ask=machine_probes.python),
    Probe(name="tools", ask=machine_probes.tools),
    Probe(name="engine", ask=machine_probes.engines, remedy="see what the container engine does: docker info"),
    Probe(name="compiler", ask=compiler_probes.compiler),
    Probe(name="disk", ask=machine_probes.disk, remedy="see whether a network disk hangs: df"),
    Probe(name="memory", ask=machine_probes.memory),
    Probe(name="index", ask=network_probes.index, remedy=network_probes.NETWORK),
    Probe(name="torch", ask=network_probes.torch, remedy=network_probes.NETWORK),
    Probe(name="git", ask=network_probes.git, remedy="check the network and proxies"),
    Probe(name="tokens", ask=network_probes.tokens),
)


@dataclass
class _Look:
    probe: Probe
    findings: list[Finding] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def take(self, scene: Scene) -> None:
        try:
            for finding in self.probe.ask(scene):
                self.findings.append(finding)
        except StepTimeoutError as error:
            found = f"not known, for this machine is busy: {error.what} ({error.why})"
            self.findings.append(lacking(self.probe.name, found, "ask again", needed=False))
        except VllmWheelsError as error:
            self.findings.append(lacking(self.probe.name, f"{error.what} ({error.why})", error.remedy, needed=True))
        except OSError as error:
            self.findings.append(lacking(self.probe.name, str(error), "see what the reason says", needed=True))
        finally:
            self.done.set()


def examine(
    settings: Settings,
    *,
    python: str,
    probes: Iterable[Probe] = PROBES,
    limit_seconds: float = LIMIT_SECONDS,
    secrets: Secrets | None = None,
) -> Iterator[Finding]:
    """Runs all checks and gives their findings in the order of the table; what outlasts the limit is a problem."""
    scene = replace(_scene(settings, python), secrets=secrets or Secrets())
    deadline = time.monotonic() + limit_seconds
    looks = [_Look(probe) for probe in probes]
    for look in looks:
        # Daemons: a name server that hangs must not keep the command from ending.
        threading.Thread(target=look.take, args=(scene,), daemon=True).start()
    for look in looks:
        finished = look.done.wait(max(deadline - time.monotonic(), 0))
        yield from list(look.findings)
        if not finished:
            found = f"no answer within {limit_seconds:.0f} s"
            yield lacking(look.probe.name, found, look.probe.remedy, needed=True)


def _scene(settings: Settings, python: str) -> Scene:
    why = None
    try:
        with engine.engine() as client:
            client.api.timeout = ANSWER_SECONDS
            client.ping()
    except EngineUnreachableError as error:
        why = error.why
    return Scene(settings=settings, python=python, distribution=distribution(), engine=why, seconds=ANSWER_SECONDS)
