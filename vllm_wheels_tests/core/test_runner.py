"""The one place that starts processes."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from vllm_wheels.core.errors import StepTimeoutError
from vllm_wheels.core.host.processes import Runner

FAMILY = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '61']).pid, flush=True); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_output_is_echoed_logged_and_kept_in_order(tmp_path):
    """Each line is seen as it comes, stands in the log, and can be had whole."""
    seen: list[str] = []
    code = "import sys; print('one', flush=True); print('two', file=sys.stderr, flush=True); print('three')"
    finished = Runner(echo=seen.append).run(python(code), log=tmp_path / "log", keep_output=True)
    assert seen == ["one", "two", "three"] == list(finished.tail)
    assert finished.output == (tmp_path / "log").read_text() == "one\ntwo\nthree\n"


def test_exit_status_is_told_and_not_raised():
    """What a status means is the caller's to say."""
    assert Runner().run(python("raise SystemExit(7)")).status == 7


def test_none_removes_a_variable_and_text_sets_one(monkeypatch):
    """The environment is this process's, changed."""
    monkeypatch.setenv("GONE", "here")
    code = "import os; print(os.environ.get('GONE'), os.environ['SET'])"
    assert Runner().run(python(code), env={"GONE": None, "SET": "x"}).tail == ("None x",)


def test_quiet_command_is_not_echoed():
    """A question to a tool does not fill the user's screen."""
    seen: list[str] = []
    assert Runner(echo=seen.append).run(python("print(1)"), quiet=True).tail == ("1",)
    assert seen == []


def test_bytes_that_are_no_text_do_not_stop_the_reader():
    """A compiler may print anything."""
    assert Runner().run(python("import os; os.write(1, b'\\xff\\n')")).tail == ("\N{REPLACEMENT CHARACTER}",)


def test_time_limit_ends_the_whole_family():
    """A step that hangs is ended with its children, and the error says how long it was allowed."""
    pids: list[str] = []
    with pytest.raises(StepTimeoutError) as caught:
        Runner(echo=pids.append).run(python(FAMILY), timeout_seconds=1.0)
    assert "1 s" in caught.value.why
    assert gone(int(pids[0]))


def test_interruption_ends_the_whole_family():
    """After Ctrl-C no grandchild goes on compiling."""
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Runner(echo=interrupt).run(python(FAMILY))
    assert gone(pids[0])


def test_process_that_ignores_the_polite_signal_is_killed(monkeypatch):
    """Nobody can refuse to end."""
    monkeypatch.setattr("vllm_wheels.core.host.processes.TERMINATE_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(StepTimeoutError):
        Runner().run(python(DEAF), timeout_seconds=1.0)
    assert time.monotonic() - started < 20


def test_commands_can_run_side_by_side():
    """The runner keeps no state, so threads may share it."""
    runner, found = Runner(), []
    threads = [threading.Thread(target=lambda: found.append(runner.run(["true"]).status)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [0, 0, 0, 0]


def test_missing_command_is_told_as_the_system_tells_it():
    """Callers turn it into an error with a remedy of their own."""
    with pytest.raises(FileNotFoundError):
        Runner().run(["no-such-command-anywhere"])


def test_child_reads_no_input():
    """A tool that asks a question gets an end of file, and does not wait for ever."""
    assert Runner().run(python("print(repr(__import__('sys').stdin.read()))")).tail == ("''",)


def test_folder_is_the_one_asked_for(tmp_path):
    """A command runs where it is told to."""
    assert Runner().run(python("import os; print(os.getcwd())"), cwd=tmp_path).tail == (os.path.realpath(tmp_path),)
