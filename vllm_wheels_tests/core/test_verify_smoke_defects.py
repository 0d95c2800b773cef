"""Why an installed wheel is convicted: the line names the cause, and nothing of this machine hides it."""

import pytest

from vllm_wheels_tests.core.laboratory import convicted, finding, write_wheel


@pytest.mark.parametrize(
    ("defect", "line"),
    [
        ("output.token_ids[0] = self.runs", "the second run gave other tokens"),
        ("output.token_ids[5] = 1024", "tokens outside the vocabulary: [1024]"),
        ("output.cumulative_logprob = float('nan')", "a token's likelihood is not a number"),
        ("os.kill(os.getpid(), 4)", "died of SIGILL"),
    ],
)
def test_wrong_tokens_are_convicted_for_what_is_wrong(laboratory, defect, line):
    """Generation that is unstable, out of range, not a number or a crash is convicted, saying which."""
    laboratory.vllm(generate=defect)
    report = laboratory.verify()
    assert convicted(report) == ["generates-tokens"]
    assert finding(report, "generates-tokens").line.startswith(line)


def test_root_cause_of_a_dead_engine_is_the_verdict(laboratory):
    """When vLLM's processes die in a row I read the first error, not the last summary."""
    defect = "print('(Worker pid=3) ERROR 11-21 [x.py:1] RuntimeError: wrong kernel'); raise EOFError('engine dead')"
    laboratory.vllm(generate=defect)
    found = finding(laboratory.verify(), "generates-tokens")
    assert found.line == "ended with status 1: RuntimeError: wrong kernel"
    assert "EOFError: engine dead" in found.evidence


def test_wrong_version_is_convicted(laboratory):
    """A command that prints another version than the wheel's is convicted."""
    laboratory.vllm(version="print('10.32.0')")
    assert convicted(laboratory.verify()) == ["command-version"]


@pytest.mark.parametrize("torch", [("2.13.0+cu130", "None"), ("2.13.0+cpu", "'13.0'")])
def test_torch_that_is_no_cpu_build_is_convicted(laboratory, torch):
    """A wheel that asks for a torch of another kind, or gets one built for CUDA, is convicted."""
    (laboratory.root / "links" / "torch-2.13.0+cpu-py3-none-any.whl").unlink()
    laboratory.torch(*torch)
    laboratory.vllm(requires=(f"torch=={torch[0]}",))
    assert convicted(laboratory.verify()) == ["torch-is-cpu"]


def test_environment_of_the_user_hides_nothing(laboratory, monkeypatch):
    """My own VLLM_TARGET_DEVICE and PYTHONPATH do not make a broken wheel look good."""
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(laboratory.root / "shim"))
    write_wheel(laboratory.root / "shim", "unused", "1")
    (laboratory.root / "shim" / "missing.py").write_text("")
    laboratory.vllm(device="os.environ.get('VLLM_TARGET_DEVICE', '')", serve="import missing")
    assert convicted(laboratory.verify()) == ["command-serve-help", "cpu-platform"]


def test_dependent_checks_are_skipped_with_the_reason(laboratory):
    """After a failed import I do not read three more failures of the same cause."""
    laboratory.vllm(extra="1 / 0")
    report = laboratory.verify()
    assert finding(report, "imports").line == "ended with status 1: ZeroDivisionError: division by zero"
    assert finding(report, "command-version").line == "not tried, because this did not pass: imports"
    assert finding(report, "torch-is-cpu").verdict == "passed"
