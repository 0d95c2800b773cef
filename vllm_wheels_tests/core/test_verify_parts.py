"""A verification's parts: a finding is used as long as all that decides it stays, and no longer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vllm_wheels.core import variants as table
from vllm_wheels.core.engine.code import Code, installed
from vllm_wheels.core.engine.plan import ActionContext, carry_out
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.target import Target
from vllm_wheels.core.verify import checks, parts, planning
from vllm_wheels.core.verify.parts import Parts
from vllm_wheels.core.verify.report import read_report
from vllm_wheels.core.verify.static_checks import STATIC
from vllm_wheels.core.verify.test_runs import IN_ENVIRONMENT, TEST_RUNS
from vllm_wheels_tests.core.harness import HERE, artifact, no_builder
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library

VERIFY = installed().root / "core" / "verify"
ASKS_THE_INDEX = {"index-file-size", "index-project-size", "index-release-complete", "torch-published"}
TARGET = Target(release="0.32.0", python=HERE, variant="baseline")
INPUTS = {name: "as before" for check in planning.ALL for name in check.inputs}
TOOLS = sorted({tool for check in planning.ALL for tool in check.tools})


@pytest.fixture
def ran(monkeypatch):
    """Names of the checks that judged something, in order."""
    names: list[str] = []
    judged = checks._judged  # noqa: SLF001 - all checks pass through it

    def noted(check, subject):
        names.append(check.name)
        return judged(check, subject)

    monkeypatch.setattr(checks, "_judged", noted)
    return names


@pytest.fixture
def edit(monkeypatch):
    """Lets the keys be taken as if text had been added to a file."""

    def edited(path, text):
        code = Code(installed().root, changed={path: f"{path.read_text('utf-8')}\n{text}\n"})
        monkeypatch.setattr(planning, "installed", lambda: code)
        monkeypatch.setattr(parts, "installed", lambda: code)

    return edited


class Verifier:
    """Verifies one wheel without installing it, as often as wanted; the store remembers."""

    def __init__(self, folder: Path, settings, ran: list[str]):
        self.folder, self.settings, self.ran = folder, settings, ran
        Recipe().write(folder / "wheel")

    def plan(self):
        known = {"wheel": artifact("wheel", self.folder / "wheel", {})}
        store = Store(self.settings.state_folder / "store")
        context = PlanContext(settings=self.settings, store=store, target=TARGET, known=known, find_builder=no_builder)
        return planning.plan(context)

    def again(self) -> set[str]:
        """Which checks ran."""
        self.ran.clear()
        context = ActionContext(
            stage=self.folder, settings=self.settings, runner=Runner(), find_builder=no_builder, say=lambda _: None
        )
        carry_out(self.plan().steps[:1], context)
        return set(self.ran)


@pytest.fixture
def verifier(tmp_path, settings, ran):
    (tmp_path / "wheel").mkdir()
    return Verifier(tmp_path, settings, ran)


def test_static_findings_are_made_once(verifier, monkeypatch):
    """Nothing is judged or decoded again as long as nothing changes, but for what the index says today."""
    assert verifier.again() == {check.name for check in STATIC}
    first = read_report(verifier.folder)
    monkeypatch.setattr(parts, "scan", lambda _: pytest.fail("the machine code was decoded again"))
    assert verifier.again() == ASKS_THE_INDEX
    second = read_report(verifier.folder)
    assert (second.findings, second.composition) == (first.findings, first.composition)


@pytest.mark.parametrize(
    ("file", "text", "judged_again"),
    [
        ("static/licence.py", "# another comment", set()),
        ("static/licence.py", "LATER = 1", {"licence", "licence-files"}),
        ("static/probes/compiling.py", "LATER = 1", {"python-compiles"}),
        ("planning.py", "LATER = 1", set()),
        ("../formats/wheelfile.py", "LATER = 1", {check.name for check in STATIC}),
        ("../index/index_rules.toml", "# later", {check.name for check in STATIC if check.name.startswith("index-")}),
    ],
)
def test_changed_code_is_judged_by_again_and_no_other(verifier, edit, file, text, judged_again):
    """An edit of a static check costs that check; one of what all of them read costs all."""
    verifier.again()
    edit((VERIFY / file).resolve(), text)
    assert verifier.again() == judged_again | ASKS_THE_INDEX


def test_changed_decoder_reads_the_machine_code_again(verifier, edit, monkeypatch):
    """Whatever reads instructions is code of the checks that judge them."""
    verifier.again()
    edit(VERIFY.parent / "formats" / "instructions.py", "LATER = 1")
    decoded = []
    scan = parts.scan
    monkeypatch.setattr(parts, "scan", lambda path: decoded.append(path) or scan(path))
    judged = {"promised-instructions", "forbidden-instructions", "identical-code", "guard", "operators"}
    assert verifier.again() - ASKS_THE_INDEX == judged
    assert len(decoded) == 1


@pytest.mark.parametrize("tool", TOOLS)
def test_newer_tool_moves_the_keys_of_the_checks_that_use_it(tool, monkeypatch):
    """After an update of auditwheel only what auditwheel says is asked again."""
    before = keys(INPUTS)
    monkeypatch.setattr(parts, "installed_version", lambda name: "99" if name == tool else "1")
    other = keys(INPUTS)
    monkeypatch.setattr(parts, "installed_version", lambda _: "1")
    moved = {name for name, key in keys(INPUTS).items() if key != other[name]}
    assert moved == {check.name for check in planning.ALL if tool in check.tools}
    assert before.keys() == other.keys()


@pytest.mark.parametrize("name", sorted(INPUTS))
def test_input_moves_the_keys_of_the_checks_that_declare_it(name):
    """Another lower variant's wheel, Python, index or setting concerns the checks that depend on it."""
    before, after = keys(INPUTS), keys({**INPUTS, name: "changed"})
    moved = {check for check, key in after.items() if key != before[check]}
    assert moved == {check.name for check in planning.ALL if name in check.inputs}


def keys(inputs):
    made = Parts(wheel=("a.whl", "0" * 64), inputs=inputs, code=installed())
    return {check.name: made.key(check) for check in planning.ALL}


def test_every_installed_check_depends_on_its_environment():
    """What is installed, where and by which code decides each test run."""
    for check in IN_ENVIRONMENT:
        assert {"python", "location", "left_out", "index"} <= set(check.inputs)
        assert any(name.endswith(".installation") for name in check.code)


def test_wheels_of_lower_variants_concern_one_check():
    """A neighbour that is built anew makes only the comparison with it stale."""
    assert [check.name for check in planning.ALL if "neighbours" in check.inputs] == ["identical-code"]


def test_plan_names_the_findings_that_are_kept(verifier):
    """Before anything runs I see which checks will."""
    number = len(STATIC)
    assert f"({number} of {number})" in verifier.plan().steps[0].title
    verifier.again()
    assert f"({len(ASKS_THE_INDEX)} of {number}; " in verifier.plan().steps[0].title
    assert set(verifier.plan().steps[0].arguments.kept) == {check.name for check in STATIC} - ASKS_THE_INDEX


def test_flag_of_another_variant_leaves_the_findings(verifier, monkeypatch):
    """What avx512 is compiled with says nothing about a baseline wheel."""
    before = verifier.plan().steps[0].arguments.keys
    known = dict(table.variants())
    known["avx512"] = replace(known["avx512"], flags=("-O1",), distribution="another")
    for module in (table, planning):
        monkeypatch.setattr(module, "variants", lambda: known)
    assert verifier.plan().steps[0].arguments.keys == before


def test_changed_probe_runs_its_test_run_again_with_the_installation(harness, ran, edit):
    """A test run whose program changed needs the environment, and nothing else runs in it."""
    harness.vllm()
    first = harness.verify()
    assert [check.name for check in TEST_RUNS] == [name for name in ran if name in {check.name for check in TEST_RUNS}]
    ran.clear()
    assert harness.verify().findings == first.findings
    assert ran == []
    edit(VERIFY / "runs" / "probes" / "importing.py", "LATER = 1")
    again = harness.verify()
    assert ran == ["installs", "imports"]
    assert [each.check for each in again.findings] == [each.check for each in first.findings]


def test_what_could_not_be_judged_is_not_kept(harness, ran):
    """A failed network is no finding: the next verification tries again, with all that depends on it."""
    harness.index = "http://127.0.0.1:9/simple"
    harness.vllm(requires=("torch==2.13.0", "elsewhere"))
    for _ in range(2):
        ran.clear()
        with pytest.raises(CannotVerifyError, match="could not be verified"):
            harness.verify()
    assert ran == ["installs"]


def test_conviction_is_kept(verifier):
    """A wheel that is wrong stays wrong, without being judged again."""
    Recipe(code=library(stripped=False)).write(verifier.folder / "wheel")
    verifier.again()
    assert verifier.again() == ASKS_THE_INDEX
    finding = next(each for each in read_report(verifier.folder).findings if each.check == "stripped")
    assert finding.verdict == "convicted"


def test_kept_parts_name_their_wheel(verifier):
    """What is kept about a wheel goes with the wheel when the store is cleaned."""
    verifier.again()
    wheels = {part.details["wheel"] for part in parts.parts_kept(Store(verifier.settings.state_folder / "store"))}
    assert wheels == {read_report(verifier.folder).sha256}
