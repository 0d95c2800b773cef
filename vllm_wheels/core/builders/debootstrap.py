"""Makes a base system out of Debian packages: debootstrap, from the mirror that this host's apt uses."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from vllm_wheels.core.errors import ImageError, MachineError
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.machine import distribution, program
from vllm_wheels.core.host.processes import Finished, Runner

TIMEOUT_SECONDS = 1800.0
ASK_SECONDS = 60.0
UNNEEDED = ("./var/cache/apt/archives/*.deb", "./var/lib/apt/lists/*", "./dev/*", "./proc/*", "./sys/*")
"""Parts of the base system that no image needs; device files are the engine's business."""

ISOLATED = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private")
"""Starts debootstrap so that it dies with this process, and what it mounts with it (setpriv(1), unshare(1))."""

MIRROR = "{mirror}"
"""Stands in a plan for the mirror that this host's apt uses; nothing where there is none."""

ASK_MIRROR = ("apt-get", "update", "--print-uris")
LAST_LINES = 2
RELEASE_FILE = re.compile(r"'(?P<mirror>\S+?)/?dists/(?P<suite>[^/]+)/(In)?Release'")


def commands(suite: str, *, packages: Sequence[str], tar: str) -> tuple[Invocation, ...]:
    """The commands of ``make`` as a plan shows them: asking apt for its mirror, debootstrap, tar.

    The folder of the archive takes the system while it is made.
    """
    system = f"{tar.removesuffix('.tar')}.system"
    included = f"--include={','.join(packages)}"
    make = ("debootstrap", "--variant=minbase", "--force-check-gpg", included, suite, system, MIRROR)
    excluded = tuple(f"--exclude={pattern}" for pattern in UNNEEDED)
    return (
        Invocation(argv=ASK_MIRROR, condition="on Debian"),
        Invocation(argv=(*ISOLATED, *make), environment={"LC_ALL": "C.UTF-8"}),
        Invocation(argv=("tar", "--numeric-owner", *excluded, "-C", system, "-cf", tar, ".")),
    )


def make(invocations: Sequence[Invocation], *, suite: str, tar: Path, log: Path, runner: Runner) -> None:
    """Writes the archive of a minimal Debian system, ready for an import into a container engine; see ``commands``.

    Raises:
        ImageError: debootstrap or tar failed.
        MachineError: debootstrap is missing, or this process is not root.
    """
    _, bootstrap, pack = invocations
    program = _debootstrap()
    mirror = host_mirror(runner)
    # Where sbin is not on PATH, the program is found all the same.
    real = bootstrap.filled({"debootstrap": [program], MIRROR: [mirror] if mirror else []})
    finished = runner.run(real.argv, log=log, timeout_seconds=TIMEOUT_SECONDS, env=real.environment)
    _require(finished, what=f"debootstrap of Debian {suite} failed", log=log)
    finished = runner.run(pack.argv, log=log, timeout_seconds=TIMEOUT_SECONDS)
    _require(finished, what="the base system cannot be packed", log=log)
    shutil.rmtree(tar.with_suffix(".system"))


def host_mirror(runner: Runner) -> str | None:
    """The Debian mirror of this host's apt; None where it is not Debian: debootstrap has a default."""
    here = distribution()
    if here.identifier != "debian" or shutil.which("apt-get") is None:
        return None
    answer = runner.run(ASK_MIRROR, timeout_seconds=ASK_SECONDS, keep_output=True, quiet=True)
    found = {match["suite"]: match["mirror"] for match in RELEASE_FILE.finditer(answer.output)}
    plain = (found[suite] for suite in (here.codename, "stable", "testing", "unstable") if suite in found)
    return next(plain, None)


def _debootstrap() -> str:
    path = program("debootstrap")
    if path is None:
        what = "the Debian builder image cannot be made here"
        raise MachineError(
            what, why="debootstrap is not installed", remedy="vllm-wheels set-up, or builder.kind = local"
        )
    if os.geteuid() != 0:
        what = "the Debian builder image cannot be made by this user"
        remedy = "run this command once with sudo (the image stays in the engine), or builder.kind = local"
        raise MachineError(what, why="debootstrap needs root", remedy=remedy)
    return path


def _require(finished: Finished, *, what: str, log: Path) -> None:
    if finished.status != 0:
        why = f"status {finished.status}: {' / '.join(finished.tail[-LAST_LINES:])}"
        raise ImageError(
            what, why=why, remedy=f"see {log}; correct what it names (most often the network), run it again"
        )
