"""What keeps a wheel from being tried is no verdict on it, and is said with what to do."""

import pytest

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.target import Target
from vllm_wheels.core.verify import planning as smoke
from vllm_wheels.core.verify.report import read_report
from vllm_wheels.core.verify.runs import processor
from vllm_wheels_tests.core.harness import HERE, finding


def test_unreachable_index_is_no_verdict(harness):
    """Without network a wheel is neither good nor bad: I am told so, and no report is kept."""
    harness.index = "http://127.0.0.1:9/simple"
    harness.vllm(requires=("torch==2.13.0", "elsewhere"))
    with pytest.raises(CannotVerifyError, match="could not be verified") as caught:
        harness.verify()
    assert "127.0.0.1:9" in caught.value.why
    assert read_report(harness.root / "stage").verdict == "could-not-judge"


@pytest.mark.parametrize("substitutes", ["refuse", "allow"])
def test_unreachable_cpu_index_is_done_without_only_if_allowed(harness, monkeypatch, substitutes):
    """Where PyTorch's own index is out of reach, substitutes are taken only if I allowed them, and it is said."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    harness.backend = "cpu"
    harness.substitutes = substitutes
    harness.vllm()
    if substitutes == "refuse":
        with pytest.raises(CannotVerifyError, match="could not be verified"):
            harness.verify()
    else:
        assert "which cannot be reached" in finding(harness.verify(), "installs").line


def test_check_that_runs_too_long_is_no_verdict(harness):
    """A hanging check is ended, and the remedy names the setting of its limit."""
    harness.timeout_seconds = 3.0
    harness.vllm(generate="__import__('time').sleep(60)")
    with pytest.raises(CannotVerifyError) as caught:
        harness.verify()
    assert "smoke.timeout_seconds" in caught.value.remedy


def test_missing_python_is_no_verdict(harness):
    """A Python that this host lacks is named, with how to get it."""
    harness.vllm()
    with pytest.raises(CannotVerifyError) as caught:
        harness.verify(Target(release="0.32.0", python="3.99"))
    assert "there is no Python 3.99 on this host" in caught.value.why
    assert "uv python install 3.99" in caught.value.remedy


def test_processor_below_the_floor_is_no_verdict(harness, monkeypatch):
    """On a processor without the variant's instructions the wheel is not convicted for dying."""
    cpuinfo = harness.root / "cpuinfo"
    cpuinfo.write_text("flags : fpu avx2 fma f16c\n")
    monkeypatch.setattr(processor, "CPUINFO", cpuinfo)
    harness.vllm(extra="import signal; os.kill(os.getpid(), signal.SIGILL)")
    with pytest.raises(CannotVerifyError, match="could not be verified") as caught:
        harness.verify(Target(release="0.32.0", python=HERE, variant="avx512"))
    assert "lacks avx512f" in caught.value.why


@pytest.mark.parametrize("names", [(), ("a-1-py3-none-any.whl", "b-1-py3-none-any.whl")])
def test_folder_without_exactly_one_wheel_is_no_verdict(tmp_path, names):
    """An artifact that holds no wheel, or two, is not guessed at."""
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CannotVerifyError, match="exactly one wheel"):
        smoke.wheel_of(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04truncated"])
def test_file_that_is_no_wheel_inside_is_no_verdict(harness, content):
    """A file that only has the name of a wheel is told from a bad wheel, without a traceback."""
    harness.vllm()
    smoke.wheel_of(harness.root / "wheel").write_bytes(content)
    with pytest.raises(CannotVerifyError, match="not a wheel that can be verified"):
        harness.verify()


def test_torch_of_another_kind_that_the_wheel_did_not_ask_for_is_no_verdict(harness):
    """Where no index in reach has a CPU build, the wheel is not convicted for the one that came instead."""
    (harness.root / "links" / "torch-2.13.0+cpu-py3-none-any.whl").unlink()
    harness.torch("2.13.0", "'13.0'")
    harness.vllm()
    with pytest.raises(CannotVerifyError, match="could not be verified") as caught:
        harness.verify()
    assert "no CPU build" in caught.value.why
