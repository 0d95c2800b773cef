"""The one place that starts processes: in a group of their own, killed as a group, watched by line and by clock."""

import os
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.errors import StepTimeoutError
from vllm_wheels.core.host.secrets import is_withheld
from vllm_wheels.core.texts import shown

TERMINATE_SECONDS = 10.0
TAIL_LINES = 60


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What became of a process."""

    argv: tuple[str, ...]
    status: int  # exit status; negative for the signal that ended it
    seconds: float  # how long it ran
    tail: tuple[str, ...]  # its last lines of output, standard error among them
    output: str = ""  # all of its output, where it was asked to be kept


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Starts processes."""

    echo: Callable[[str], None] | None = None  # given each line of output as it comes; None keeps quiet

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        timeout_seconds: float | None = None,
        log: Path | None = None,
        keep_output: bool = False,
        quiet: bool = False,
        on_interrupt: Callable[[], None] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Finished:
        """Runs a command to its end, whatever its exit status.

        ``env`` has changes to this process's environment, where None removes a variable. After ``timeout_seconds`` the
        whole group is ended; ``on_interrupt`` is called before a group is ended early. Output is appended to ``log``.
        The process inherits the descriptors of ``pass_fds``, and no other.

        Raises:
            StepTimeoutError: it took longer than ``timeout_seconds``.
            FileNotFoundError: there is no such command.
        """
        started = time.monotonic()
        process = _started(argv, env or {}, cwd, pass_fds)
        expired = threading.Event()
        timer = _timer(process, timeout_seconds, expired)
        try:
            tail, output = self._drain(process, log, keep_output=keep_output, quiet=quiet)
            status = process.wait()
        except BaseException:
            if on_interrupt:
                on_interrupt()
            end_group(process)
            raise
        finally:
            if timer:
                timer.cancel()
        if expired.is_set():
            what = f"{shlex.join(argv[:3])} did not finish"
            why = f"it ran longer than its limit of {timeout_seconds:.0f} s"
            raise StepTimeoutError(what, why=why, remedy="raise builder.timeout_seconds, or see in the log what hangs")
        seconds = time.monotonic() - started
        return Finished(argv=tuple(argv), status=status, seconds=seconds, tail=tuple(tail), output=output)

    def start(self, argv: Sequence[str], *, env: Mapping[str, str | None] | None = None) -> subprocess.Popen[str]:
        """Starts a server that shares this process's output and runs until ``end_group``; all else is as in ``run``."""
        return subprocess.Popen(
            list(argv), env=_environment(env or {}), stdin=subprocess.DEVNULL, start_new_session=True, text=True
        )

    def _drain(
        self, process: subprocess.Popen[str], log: Path | None, *, keep_output: bool, quiet: bool
    ) -> tuple[deque[str], str]:
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        kept: list[str] = []
        stream = log.open("a", encoding="utf-8") if log else None
        assert process.stdout is not None  # noqa: S101 - opened as a pipe above
        try:
            for line in process.stdout:
                # What people read; who parses the output has it as it came.
                clean = shown(line.rstrip("\n"))
                tail.append(clean)
                if stream:
                    stream.write(f"{clean}\n")
                    stream.flush()
                if keep_output:
                    kept.append(line)
                if self.echo and not quiet:
                    self.echo(clean)
        finally:
            process.stdout.close()
            if stream:
                stream.close()
        return tail, "".join(kept)


def _started(
    argv: Sequence[str], env: Mapping[str, str | None], cwd: Path | None, pass_fds: Sequence[int]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        list(argv),
        env=_environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        pass_fds=pass_fds,
    )


def end_group(*processes: subprocess.Popen[str], grace_seconds: float = TERMINATE_SECONDS) -> None:
    """Ends processes and all their children: TERM, one grace for all of them, KILL."""
    deadline = time.monotonic() + grace_seconds
    for process in processes:
        _signal_group(process, signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        # Children may outlive their parent's clean exit.
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[str], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _timer(
    process: subprocess.Popen[str], timeout_seconds: float | None, expired: threading.Event
) -> threading.Timer | None:
    if timeout_seconds is None:
        return None

    def expire() -> None:
        expired.set()
        end_group(process)

    timer = threading.Timer(timeout_seconds, expire)
    timer.daemon = True
    timer.start()
    return timer


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not is_withheld(name)}
    merged = {**inherited, **changes}
    return {name: value for name, value in merged.items() if value is not None}
