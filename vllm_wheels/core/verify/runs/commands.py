"""The command that the wheel installs works: ``vllm --version`` and ``vllm serve --help``."""

from packaging.version import Version

from vllm_wheels.core.formats.versions import version_in
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed
from vllm_wheels.core.verify.runs.probing import judge_failure, run, vllm
from vllm_wheels.core.verify.test_run import IMPORTS, TestRun, last_lines


def _version(test_run: TestRun) -> Judgement:
    finished = run(test_run)
    if finished.status != 0:
        return judge_failure(finished)
    wanted = Version(test_run.version).base_version
    if wanted in {version.base_version for word in finished.output.split() if (version := version_in(word))}:
        return passed(f"vllm --version says {wanted}", evidence=last_lines(finished.output))
    line = f"vllm --version does not say {wanted}"
    remedy = "give the build the release's version (VLLM_VERSION_OVERRIDE)"
    return convicted(line, evidence=last_lines(finished.output), remedy=remedy)


def _serve_help(test_run: TestRun) -> Judgement:
    finished = run(test_run)
    if finished.status != 0:
        return judge_failure(finished)
    return passed("vllm serve --help works", evidence=last_lines(finished.output, 5))


CHECKS: tuple[Check[TestRun], ...] = (
    Check("command-version", "run vllm --version", _version, needs=(IMPORTS,), seconds=20, commands=vllm("--version")),
    Check(
        "command-serve-help",
        "run vllm serve --help",
        _serve_help,
        needs=(IMPORTS,),
        seconds=20,
        commands=vllm("serve", "--help"),
    ),
)
