"""Why an installed wheel is convicted: the line names the cause, and nothing of this machine hides it."""

import pytest

from vllm_wheels_tests.core.harness import convicted, finding, write_wheel


@pytest.mark.parametrize(
    ("defect", "line"),
    [
        ("output.token_ids[0] = self.runs", "llama-bf16 answers wrongly: the second run gave another answer"),
        ("output.token_ids[5] = 1024", "llama-bf16 answers wrongly: tokens without a likelihood: [1024]"),
        ("logprobs[3][7] = SimpleNamespace(logprob=float('nan'))", "llama-bf16 answers wrongly: a likelihood"),
        ("os.kill(os.getpid(), 4)", "died of SIGILL"),
    ],
)
def test_wrong_tokens_are_convicted_for_what_is_wrong(harness, defect, line):
    """Generation that is unstable, out of range, not a number or a crash is convicted, saying which."""
    harness.vllm(generate=defect)
    report = harness.verify()
    assert convicted(report) == ["generates-tokens"]
    assert finding(report, "generates-tokens").line.startswith(line)


def test_root_cause_of_a_dead_engine_is_the_verdict(harness):
    """When vLLM's processes die in a row I read the first error, not the last summary."""
    defect = "print('(Worker pid=3) ERROR 11-21 [x.py:1] RuntimeError: wrong kernel'); raise EOFError('engine dead')"
    harness.vllm(generate=defect)
    found = finding(harness.verify(), "generates-tokens")
    assert found.line == "ended with status 1: RuntimeError: wrong kernel"
    assert "EOFError: engine dead" in found.evidence


def test_wrong_version_is_convicted(harness):
    """A command that prints another version than the wheel's is convicted."""
    harness.vllm(version="print('10.32.0')")
    assert convicted(harness.verify()) == ["command-version"]


@pytest.mark.parametrize("torch", [("2.13.0+cu130", "None"), ("2.13.0+cpu", "'13.0'")])
def test_torch_that_is_no_cpu_build_is_convicted(harness, torch):
    """A wheel that asks for a torch of another kind, or gets one built for CUDA, is convicted."""
    (harness.root / "links" / "torch-2.13.0+cpu-py3-none-any.whl").unlink()
    harness.torch(*torch)
    harness.vllm(requires=(f"torch=={torch[0]}",))
    assert convicted(harness.verify()) == ["torch-is-cpu"]


def test_environment_of_the_user_hides_nothing(harness, monkeypatch):
    """My own VLLM_TARGET_DEVICE and PYTHONPATH do not make a broken wheel look good."""
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(harness.root / "shim"))
    write_wheel(harness.root / "shim", "unused", "1")
    (harness.root / "shim" / "missing.py").write_text("")
    harness.vllm(device="os.environ.get('VLLM_TARGET_DEVICE', '')", serve="import missing")
    assert convicted(harness.verify()) == ["command-serve-help", "cpu-platform"]


def test_dependent_checks_are_skipped_with_the_reason(harness):
    """After a failed import I do not read three more failures of the same cause."""
    harness.vllm(extra="1 / 0")
    report = harness.verify()
    assert finding(report, "imports").line == "ended with status 1: ZeroDivisionError: division by zero"
    assert finding(report, "command-version").line == "not tried, because this did not pass: imports"
    assert finding(report, "torch-is-cpu").verdict == "passed"
