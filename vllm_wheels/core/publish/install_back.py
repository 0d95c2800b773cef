"""Installs a published wheel back from an index, by name and hash, and tries it as verification does."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vllm_wheels.core.engine.plan import ActionContext
from vllm_wheels.core.host.processes import Finished
from vllm_wheels.core.index.repositories import Repository
from vllm_wheels.core.publish.candidate import Candidate
from vllm_wheels.core.variants import variant
from vllm_wheels.core.verify.checks import Check, Judgement, run_check
from vllm_wheels.core.verify.gate import require_passed
from vllm_wheels.core.verify.locations import choose
from vllm_wheels.core.verify.report import Report
from vllm_wheels.core.verify.runs.installation import base_python, left_out
from vllm_wheels.core.verify.test_run import INSTALLS, TestRun, last_lines
from vllm_wheels.core.verify.test_runs import TEST_RUNS

COMES_BACK = "comes-back"
INDEX = "published"
READER = (f"UV_INDEX_{INDEX.upper()}_USERNAME", f"UV_INDEX_{INDEX.upper()}_PASSWORD")
"""Variables by which uv takes the credentials of the index called so, which keeps them out of its arguments."""


def try_back(candidate: Candidate, repository: Repository, context: ActionContext) -> dict[str, Any]:
    """Tries a wheel on the first Python that it has passed on, and installs the same bytes by name from an index.

    Returns the report as plain JSON; a folder below the context's stage holds the environment meanwhile.

    Raises:
        VerificationError: it does not come back with the same bytes, or does not work.
        CannotVerifyError: something here kept it from being tried.
    """
    with TemporaryDirectory(prefix="back-", dir=context.stage) as folder:
        test_run = _test_run(candidate, replace(context, stage=Path(folder)))
        report = Report(
            wheel=candidate.path.name,
            sha256=candidate.sha256,
            distribution=test_run.distribution,
            version=test_run.version,
            python=test_run.python,
            location=test_run.location,
            findings=(),
            started=time.time(),
            seconds=0.0,
        )
        for check in _checks(candidate, repository):
            finding = run_check(check, test_run.with_commands_of(check), earlier=report.findings)
            context.say(f"{finding.verdict}: {finding.check}: {finding.line}")
            report = report.with_finding(finding, now=time.time())
    require_passed(report, sha256=candidate.sha256)
    return report.as_json()


def _test_run(candidate: Candidate, context: ActionContext) -> TestRun:
    settings = context.settings
    return TestRun(
        context=context,
        location=choose(candidate.path.name, smoke=settings.smoke, find_builder=context.find_builder),
        wheel=candidate.path,
        distribution=candidate.project,
        version=candidate.version,
        python=candidate.pythons[0],
        left_out=left_out(settings),
        floor=variant(candidate.variant).floor,
    )


def _checks(candidate: Candidate, repository: Repository) -> list[Check[TestRun]]:
    """The checks of verification, with one more right after the installation, on which all later ones depend."""
    found: list[Check[TestRun]] = []
    for check in TEST_RUNS:
        found.append(replace(check, needs=(COMES_BACK,)) if INSTALLS in check.needs else check)
        if check.name == INSTALLS:
            found.append(
                Check(
                    COMES_BACK,
                    f"install the same bytes by name from {repository.name}",
                    lambda test_run: _come_back(test_run, candidate, repository),
                    needs=(INSTALLS,),
                )
            )
    return found


def _come_back(test_run: TestRun, candidate: Candidate, repository: Repository) -> Judgement:
    line = f"{candidate.project}=={candidate.version} --hash=sha256:{candidate.sha256}\n"
    (test_run.folder / "back.txt").write_text(line, "utf-8")
    finished = _uv(
        test_run,
        [
            # Not into the environment: uv would start its Python, and with it what the wheel put there.
            *("pip", "install", "--python", base_python(test_run), "--target", f"{test_run.place}/back"),
            *("--no-cache", "--no-deps"),
            *("--require-hashes", "--no-build", "--default-index", f"{INDEX}={repository.simple_url}"),
            *("--requirements", f"{test_run.place}/back.txt"),
        ],
        env=dict(zip(READER, repository.reader, strict=True)) if repository.reader else {},
    )
    if finished.status == 0:
        return Judgement(verdict="passed", line=f"installs by name from {repository.name}, with the same bytes")
    line = f"does not come back from {repository.name}: {(finished.tail or ('uv gave no reason',))[-1].strip()}"
    remedy = "look at the index's page of the project; run again if it is late"
    return Judgement(verdict="convicted", line=line, evidence=last_lines(finished.output), remedy=remedy)


def _uv(test_run: TestRun, arguments: list[str], *, env: Mapping[str, str]) -> Finished:
    common = ("--color", "never", "--no-progress", "--no-python-downloads")
    # No other index than the one that is being tested may answer.
    env = {"UV_INDEX": "", "UV_EXTRA_INDEX_URL": "", "UV_FIND_LINKS": "", **env}
    return test_run.run_with_network([test_run.uv, *arguments, *common], env=env)
