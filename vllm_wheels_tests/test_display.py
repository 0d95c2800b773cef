"""A build as it looks on a terminal, and what an interruption there does."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from vllm_wheels.commands.display import clock, picture, pulse, summary
from vllm_wheels.core import settings as configuration
from vllm_wheels.core.engine.plan import Plan, Step
from vllm_wheels.core.engine.rendering import document
from vllm_wheels.core.engine.rule import Rule, Scope
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.operations.preflight import SHARED_SHARE, Planned
from vllm_wheels.core.operations.progress import Progress
from vllm_wheels.core.target import Target
from vllm_wheels_tests.fixtures.building import command, run
from vllm_wheels_tests.test_cli import COMPILING, compilers_below

pytestmark = pytest.mark.slow

TARGET = Target(release="0.32.0", python="3.11", variant="avx512")
PATIENCE_SECONDS = 150.0
COMPILE = (Step(title="compile", action=lambda *_: None, arguments=None, seconds=1000.0),)
COUNTER = re.compile(rb"\[\d+/\d+\] \d+ %")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A terminal with one command on it."""

    def __init__(self, *arguments: str, columns: int = 80) -> None:
        self.seen = b""
        self._descriptor, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        # Only the terminal of a session turns a key into an interruption.
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *command(*arguments)],
            stdin=far,
            stdout=far,
            stderr=far,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(far)

    def type(self, text: bytes) -> None:
        """Presses keys."""
        os.write(self._descriptor, text)

    def watch(self, *, until: Callable[[bytes], object] = lambda _: False) -> None:
        """Reads what is shown until that is seen, or the command ends."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until(self.seen):
            if time.monotonic() > deadline:
                self._process.kill()
                raise TimeoutError(self.text()[-2000:])
            if not select.select([self._descriptor], [], [], 1.0)[0]:
                continue
            try:
                part = os.read(self._descriptor, 65536)
            except OSError:
                # Linux says so when the other side has closed.
                return
            if not part:
                return
            self.seen += part

    def end(self) -> int:
        """Reads to the end; the exit status."""
        self.watch()
        os.close(self._descriptor)
        return self._process.wait()

    def text(self) -> str:
        """What was shown, without colours."""
        return ESCAPE.sub("", self.seen.decode("utf-8", errors="replace"))


def drawn(progress: Progress, *, columns: int) -> list[str]:
    """The lines of the display on a terminal of that width."""
    console = Console(width=columns, record=True, file=io.StringIO())
    console.print(picture(progress, current="compile vLLM 0.32.0 for avx512 with 2 jobs"))
    return console.export_text().splitlines()


@pytest.fixture
def compiling() -> Progress:
    """A build whose compiler is at 120 of 430 after five minutes."""
    moments = iter([0.0, 0.0])
    progress = Progress(
        estimates={("source", TARGET.shared()): 0.0, ("compiled", TARGET): 1000.0, ("wheel", TARGET): 10.0},
        now=lambda: next(moments, 300.0),
    )
    progress.begun(Plan(artifact="compiled", target=TARGET, inputs={}, steps=()))
    progress.line("[120/430] Building")
    return progress


def test_display_shows_stages_counter_and_times(compiling):
    """One look tells where the build is and when it ends."""
    head, row, current, total = drawn(compiling, columns=80)
    assert head.split() == ["variant", "prepare", "compile", "wheel", "spent", "left"]
    assert row.split() == ["avx512", "-", "[120/430]", "27", "%", "-", "5:00", "~13:05"]
    assert current == "compile vLLM 0.32.0 for avx512 with 2 jobs"
    assert total == "elapsed 5:00, about 13:05 left"


@pytest.mark.parametrize("columns", [30, 40, 200])
def test_display_keeps_to_the_width_of_the_terminal(compiling, columns):
    """A narrow terminal cuts lines off and wraps none, which would leave a trail of pictures."""
    lines = drawn(compiling, columns=columns)
    assert len(lines) == 4
    assert max(map(len, lines)) <= columns


def test_hit_rate_is_shown_once_the_cache_was_asked(compiling):
    """How much comes from the compiler's cache."""
    compiling.cache = (3, 1)
    assert summary(compiling).endswith("compiler cache 75 % (3 of 4)")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (42, "0:42"), (725, "12:05"), (3723, "1:02:03")])
def test_times_are_written_as_people_read_them(seconds, text):
    """Minutes and seconds, and hours only where there are any."""
    assert clock(seconds) == text


def test_without_a_terminal_a_line_tells_how_far_the_build_is(compiling):
    """In a log of CI I see every half minute that it goes on, and for how long."""
    assert pulse(compiling) == "compiled avx512 [120/430]: elapsed 5:00, about 13:05 left"


def test_log_of_a_build_has_no_lines_of_the_compiler(settings_environment):
    """A log file gets milestones, not thousands of lines; with -v it gets them all."""
    arguments = ("build", "--no-verify", "--yes", "--variant", "baseline")
    log = run(*arguments)
    assert (log.returncode, COMPILING in log.stdout, "compile vLLM" in log.stdout) == (0, False, True)
    quiet = run(*arguments, "--quiet", "--max-jobs", "1")
    first = next(line for line in quiet.stdout.splitlines() if not line.startswith("NOTICE: "))
    assert (quiet.returncode, first.split()[0]) == (0, "MB")


def test_first_guess_takes_into_account_what_variants_share(tmp_path):
    """The second variant of a release takes less, because oneDNN is compiled once."""
    targets = [Target(release="0.32.0", python="3.11", variant=name) for name in ("avx512", "amxbf16")]
    rule = Rule(
        kind="compiled",
        title="extensions",
        scope=Scope.RELEASE | Scope.VARIANT,
        plan=lambda context: Plan(artifact="compiled", target=context.target, inputs={}, steps=COMPILE),
    )
    builds = build_graph(configuration.load(), say=print, own_rules={"compiled": rule})
    documents = tuple(document(builds, "compiled", target) for target in targets)
    first, second = Planned(targets=tuple(targets), documents=documents).estimates().values()
    assert second == first * SHARED_SHARE


def test_finished_build_is_shown_live_and_ends_with_the_next_command(built):
    """Nothing is to be done, so nothing is asked; the table fits the terminal."""
    terminal = Terminal("build", "--variant", "baseline")
    assert terminal.end() == 0
    text = terminal.text()
    assert re.search(r"baseline +kept +kept +kept +kept", text)
    assert "Build this?" not in text
    assert re.search(r"^  sha256 [0-9a-f]{64}\r$", text, re.MULTILINE)
    assert re.search(r"^next: ", text, re.MULTILINE)


def test_answer_no_builds_nothing(settings_environment):
    """I look at the plan and think better of it."""
    terminal = Terminal("build", "--variant", "baseline")
    terminal.watch(until=lambda seen: b"Build this?" in seen)
    terminal.type(b"n\n")
    assert terminal.end() == 0
    assert "nothing was built" in terminal.text()
    assert not (configuration.load().state_folder / "store" / "torch_env").exists()


def test_one_interruption_at_the_terminal_stops_the_compiler_and_says_how_to_go_on(cold_compiler, tmp_path):
    """Ctrl-C, once: no compiler is left, the cursor is back, and the command to continue is there to be copied."""
    terminal = Terminal("build", "--variant", "baseline", "--no-verify", "--yes")
    terminal.watch(until=COUNTER.search)
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert compilers_below(tmp_path) == []
    assert "to go on from there: " in terminal.text()
    assert "--variant baseline --no-verify --yes" in terminal.text()
    assert terminal.seen.rfind(b"\x1b[?25h") > terminal.seen.rfind(b"\x1b[?25l")
