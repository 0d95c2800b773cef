"""Runs programs of the wheel's environment; a probe is a script of ours that prints what it saw as one line of JSON."""

import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.processes import Finished
from vllm_wheels.core.verify.checks import Judgement, convicted
from vllm_wheels.core.verify.test_run import HERE, PROGRAMS, TestRun, answer, answer_lines, last_lines, sandboxed

RAISED = re.compile(r"(?:^|\s)(?P<error>(?:\w+\.)*\w*(?:Error|Exception)(?:: .+)?)$")
"""The line of a traceback that names the exception."""

SHELL_SIGNAL = 128
"""Exit status of a program that a signal killed is this plus the signal's number (shells and container engines)."""

SIGNALS = {int(number): number.name for number in signal.Signals}


def probe(script: str, *arguments: str, **env: str) -> tuple[Invocation, ...]:
    """The command of a probe of ``runs/probes``."""
    # Isolated, so that the folder of the probes is not searched for modules.
    return (sandboxed(f"{PROGRAMS}/python", "-I", f"{HERE}/probes/{script}", *arguments, **env),)


def vllm(*arguments: str, **env: str) -> tuple[Invocation, ...]:
    """The command ``vllm`` that the wheel installs."""
    return (sandboxed(f"{PROGRAMS}/vllm", *arguments, **env),)


def probed(judge: Callable[[TestRun, Mapping[str, Any]], Judgement]) -> Callable[[TestRun], Judgement]:
    """Makes a check of a probe: runs it and judges its answer; a probe that fails convicts."""
    return lambda test_run: judge_probe(test_run, judge)


def run(test_run: TestRun) -> Finished:
    """Runs the only command of the check."""
    (command,) = test_run.commands
    return test_run.start(command)


def judge_probe(test_run: TestRun, judge: Callable[[TestRun, Mapping[str, Any]], Judgement]) -> Judgement:
    """Runs the check's probe and judges its answer.

    Raises:
        CannotVerifyError: it was killed.
    """
    finished = run(test_run)
    lines = answer_lines(finished)
    if finished.status != 0 or not lines:
        return judge_failure(finished)
    return replace(judge(test_run, answer(lines[-1])), evidence=lines[-1])


def judge_failure(finished: Finished) -> Judgement:
    """The judgement of a program that failed: convicts it, with the error that it logged."""
    number = -finished.status if finished.status < 0 else finished.status - SHELL_SIGNAL
    name = SIGNALS.get(number)
    if name == "SIGKILL":
        what = "the program was killed"
        raise CannotVerifyError(what, why="nearly always for lack of memory", remedy="free memory, then verify again")
    ending = f"died of {name}" if name else f"ended with status {finished.status}"
    causes = _causes(finished.output)
    evidence = "\n".join([*causes, "", last_lines(finished.output)])
    line = f"{ending}: {causes[0]}" if causes else ending
    return convicted(line, evidence=evidence, remedy="see the evidence; the whole output is in smoke.log")


def _causes(output: str) -> list[str]:
    """The errors that the program logged or raised, the root cause first.

    vLLM's processes log as ERROR what ended them, the first cause first, before the main process raises a summary.
    """
    raised = [match for line in output.splitlines() if (match := RAISED.search(line)) and " WARNING " not in line]
    logged = [match["error"] for match in raised if " ERROR " in match.string]
    others = [match["error"] for match in reversed(raised) if " ERROR " not in match.string]
    last = [line.strip() for line in output.splitlines() if line.strip()][-1:]
    return list(dict.fromkeys([*logged, *others])) or last


def convict_if(faults: Mapping[str, object], *, remedy: str, otherwise: Judgement) -> Judgement:
    """Convicts for the faults whose value is true; ``otherwise`` where there is none."""
    wrong = "; ".join(text for text, is_so in faults.items() if is_so)
    return convicted(wrong, remedy=remedy) if wrong else otherwise


def convicting_in_full(judge: Callable[[TestRun], Judgement]) -> Callable[[TestRun], Judgement]:
    """Raises convictions of a check to severity ``error``; the check itself is a ``warning``, as it may lack a tool."""

    def judged(test_run: TestRun) -> Judgement:
        found = judge(test_run)
        return replace(found, severity="error") if found.verdict == "convicted" else found

    return judged
