"""The whole smoke path on this host, over wheels of a few hundred bytes that stand for vLLM and torch."""

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.plan import Bench
from vllm_wheels.core.runner import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.store import Piece
from vllm_wheels.core.target import Target
from vllm_wheels.core.verify import behaviour, smoke
from vllm_wheels.core.verify.report import Report

HERE = "{}.{}".format(*sys.version_info)
TARGET = Target(release="0.32.0", python=HERE)

VLLM = """
import os
from types import SimpleNamespace

__version__ = "0.32.0"

class SamplingParams:
    def __init__(self, **wishes):
        self.tokens = wishes["max_tokens"]

class LLM:
    runs = 0
    def __init__(self, model, **wishes):
        assert open(os.path.join(model, "config.json")).read()
    def generate(self, prompts, params, use_tqdm):
        self.runs += 1
        output = SimpleNamespace(token_ids=[7] * params.tokens, cumulative_logprob=-1.0)
        {generate}
        return [SimpleNamespace(outputs=[output])]
{extra}
"""
PLATFORMS = """
import os
device = {device}
current_platform = type("CpuPlatform", (), {{"device_type": device, "is_cpu": lambda self: device == "cpu"}})()
"""
CLI = """
import sys

def main():
    if sys.argv[1:] == ["--version"]:
        {version}
    if sys.argv[1:] == ["serve", "--help"]:
        {serve}
"""
TORCH = """
__version__ = "{version}"
from types import SimpleNamespace
version = SimpleNamespace(cuda={cuda})
cuda = SimpleNamespace(is_available=lambda: False)
"""


def write_wheel(
    folder: Path, name: str, version: str, files=(), *, requires=(), scripts="", tag="py3-none-any", inner=None
):
    """Writes a wheel; uv reads no more of RECORD than the names."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    content = {
        **dict(files),
        f"{info}/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name.replace('_', '-')}", f"Version: {version}"]
            + [f"Requires-Dist: {line}" for line in requires]
        ),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {inner or tag}\n",
        f"{info}/entry_points.txt": scripts,
    }
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in content.items():
            archive.writestr(place, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{place},,\n" for place in (*content, f"{info}/RECORD")))
    return path


@dataclass
class Laboratory:
    """Makes stand-ins for vLLM and torch, and verifies them."""

    root: Path
    generate: bool = True
    timeout_seconds: float = 60.0
    index: str = ""
    backend: str = "none"
    substitutes: str = "refuse"

    def torch(self, version="2.13.0+cpu", cuda="None"):
        """Publishes a torch of three lines."""
        write_wheel(self.root / "links", "torch", version, {"torch.py": TORCH.format(version=version, cuda=cuda)})

    def vllm(
        self,
        *,
        generate="pass",
        extra="",
        device="'cpu'",
        version="print('0.32.0+cpu')",
        serve="print('usage: vllm serve')",
        requires=("torch==2.13.0",),
        inner=None,
        **more,
    ):
        """Makes the wheel; each argument is a place where a defect can be."""
        files = {
            "vllm/__init__.py": VLLM.format(generate=generate, extra=extra),
            "vllm/platforms/__init__.py": PLATFORMS.format(device=device),
            "vllm/cli.py": CLI.format(version=version, serve=serve),
        }
        scripts = "[console_scripts]\nvllm = vllm.cli:main\n"
        folder = self.root / "wheel"
        write_wheel(folder, "vllm_cpu_test", "0.32.0", files, requires=requires, scripts=scripts, inner=inner, **more)

    def settings(self):
        """Everything from this folder, nothing from the network."""
        empty = self.root / "index"
        empty.mkdir(exist_ok=True)
        return Settings(
            state_folder=self.root / "state",
            index={"url": self.index or empty.as_uri(), "find_links": [str(self.root / "links")]},
            torch={"backend": self.backend, "packages": ["torch"]},
            substitutes=self.substitutes,
            smoke={"generate": self.generate, "timeout_seconds": self.timeout_seconds},
        )

    def plan(self, target=TARGET, **more):
        """The plan over the wheel."""
        folder = self.root / "wheel"
        piece = Piece(kind="wheel", fingerprint="f", folder=folder, inputs={}, facts={}, made_at=0.0, seconds=0.0)
        return smoke.plan(target, wheel=piece, settings=self.settings(), find_builder=no_builder, **more)

    def verify(self, target=TARGET) -> Report:
        """Carries the plan out, and gives the report."""
        stage = self.root / "stage"
        stage.mkdir()
        bench = Bench(
            stage=stage, settings=self.settings(), runner=Runner(), find_builder=no_builder, say=lambda _: None
        )
        self.facts = {}
        for step in self.plan(target).steps:
            self.facts |= smoke.VERBS[step.verb](bench, **step.arguments) or {}
            assert all(bench.path(name).exists() for name in step.writes)
        return smoke.read_report(stage)


def no_builder():
    pytest.fail("a portable wheel was taken to a builder")


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    # These wheels are only good enough to be installed; what can be seen without that has tests of its own.
    monkeypatch.setattr(smoke, "look", lambda _, on_finding: ())  # noqa: ARG005 - called with it
    made = Laboratory(tmp_path)
    made.torch()
    return made


def convicted(report):
    return [finding.check for finding in report.findings if finding.verdict == "convicted"]


def finding(report, check):
    return next(each for each in report.findings if each.check == check)


def test_good_wheel_passes_every_check(laboratory):
    """A wheel without defect passes everything, and the report is of exactly that file."""
    laboratory.vllm()
    report = laboratory.verify()
    assert {each.verdict for each in report.findings} == {"passed", "skipped"}
    assert [each.check for each in report.findings if each.verdict == "skipped"] == [
        "torch-companions",
        "guard-refuses",
        "runs-on-lowest-cpu",
    ]
    assert [each.check for each in report.findings] == [check.name for check in behaviour.CHECKS]
    assert report.sha256 == laboratory.plan().inputs["wheel"]
    assert laboratory.facts["verdict"] == "passed"
    assert laboratory.facts["tokens_per_second"] > 0


def test_only_report_and_log_are_kept(laboratory):
    """The environment of gigabytes is gone when the report is finished."""
    laboratory.vllm()
    laboratory.verify()
    assert sorted(path.name for path in (laboratory.root / "stage").iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
        "smoke.log",
    ]


BROKEN = {
    "installs": {"requires": ("torch==2.13.0", "nobody-publishes-this")},
    "requirements-agree": {"inner": "cp27-cp27mu-linux_x86_64"},
    "imports": {"extra": "import _C_that_is_missing"},
    "command-version": {"version": "from importlib.metadata import version; print(version('vllm'))"},
    "command-serve-help": {"serve": "sys.exit(3)"},
    "cpu-platform": {"device": "''"},
    "generates-tokens": {"generate": "output.token_ids.pop()"},
}


@pytest.mark.parametrize("check", BROKEN)
def test_broken_wheel_is_convicted_by_the_check_made_for_it(laboratory, check):
    """Each defect is named by its own identifier, and no other check cries."""
    laboratory.vllm(**BROKEN[check])
    report = laboratory.verify()
    assert convicted(report) == [check]
    assert finding(report, check).remedy
    assert finding(report, check).evidence
    assert report.verdict == "convicted"


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


@pytest.mark.parametrize("torch", [("2.13.0", "None"), ("2.13.0+cpu", "'13.0'")])
def test_torch_that_is_no_cpu_build_is_convicted(laboratory, torch):
    """A torch without +cpu, or one built for CUDA, is convicted."""
    (laboratory.root / "links" / "torch-2.13.0+cpu-py3-none-any.whl").unlink()
    laboratory.torch(*torch)
    laboratory.vllm()
    assert convicted(laboratory.verify()) == ["torch-is-cpu"]


def test_part_of_cuda_is_convicted(laboratory):
    """A wheel that brings a package of CUDA along is convicted."""
    write_wheel(laboratory.root / "links", "nvidia_cublas", "13.0")
    laboratory.vllm(requires=("torch==2.13.0", "nvidia-cublas"))
    report = laboratory.verify()
    assert convicted(report) == ["torch-is-cpu"]
    assert "nvidia-cublas" in finding(report, "torch-is-cpu").line


def test_shim_called_vllm_is_convicted(laboratory):
    """A second distribution called vllm, which hides a dead command, is convicted."""
    write_wheel(laboratory.root / "links", "vllm", "0.32.0")
    laboratory.vllm(requires=("torch==2.13.0", "vllm"))
    assert convicted(laboratory.verify()) == ["no-vllm-dist-info"]


def test_environment_of_the_user_hides_nothing(laboratory, monkeypatch):
    """My own VLLM_TARGET_DEVICE and PYTHONPATH do not make a broken wheel look good."""
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(laboratory.root / "shim"))
    write_wheel(laboratory.root / "shim", "unused", "1")
    (laboratory.root / "shim" / "missing.py").write_text("")
    laboratory.vllm(device="os.environ.get('VLLM_TARGET_DEVICE', '')", serve="import missing")
    assert convicted(laboratory.verify()) == ["command-serve-help", "cpu-platform"]


def test_what_was_left_out_is_said_and_not_passed(laboratory):
    """Requirements that torch.packages leaves out are skipped by name, and nothing else is excused."""
    laboratory.vllm(requires=("torch==2.13.0", "torchvision", "torchcodec>=0.14"))
    report = laboratory.verify()
    assert finding(report, "complete").verdict == "skipped"
    assert "torchcodec, torchvision" in finding(report, "complete").line
    assert "torchcodec, torchvision (left out)" in finding(report, "requirements-agree").line
    assert report.verdict == "passed"


def test_generation_can_be_switched_off_but_is_not_called_passed(laboratory):
    """With smoke.generate off the report says that no token was generated."""
    laboratory.generate = False
    laboratory.vllm(generate="raise SystemExit")
    assert finding(laboratory.verify(), "generates-tokens").verdict == "skipped"


def test_dependent_checks_are_skipped_with_the_reason(laboratory):
    """After a failed import I do not read three more failures of the same cause."""
    laboratory.vllm(extra="1 / 0")
    report = laboratory.verify()
    assert finding(report, "imports").line == "ended with status 1: ZeroDivisionError: division by zero"
    assert finding(report, "command-version").line == "not tried, because this did not pass: imports"
    assert finding(report, "torch-is-cpu").verdict == "passed"


def test_unreachable_index_is_no_verdict(laboratory):
    """Without network a wheel is neither good nor bad: I am told so, and no report is kept."""
    laboratory.index = "http://127.0.0.1:9/simple"
    laboratory.vllm(requires=("torch==2.13.0", "elsewhere"))
    with pytest.raises(CannotVerifyError, match="could not be verified") as caught:
        laboratory.verify()
    assert "127.0.0.1:9" in caught.value.why
    assert smoke.read_report(laboratory.root / "stage").verdict == "could-not-judge"


@pytest.mark.parametrize("substitutes", ["refuse", "allow"])
def test_unreachable_cpu_index_is_done_without_only_if_allowed(laboratory, monkeypatch, substitutes):
    """Where PyTorch's own index is out of reach, substitutes are taken only if I allowed them, and it is said."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    laboratory.backend = "cpu"
    laboratory.substitutes = substitutes
    laboratory.vllm()
    if substitutes == "refuse":
        with pytest.raises(CannotVerifyError, match="could not be verified"):
            laboratory.verify()
    else:
        assert "which cannot be reached" in finding(laboratory.verify(), "installs").line


def test_check_that_runs_too_long_is_no_verdict(laboratory):
    """A hanging check is ended, and the remedy names the setting of its limit."""
    laboratory.timeout_seconds = 3.0
    laboratory.vllm(generate="__import__('time').sleep(60)")
    with pytest.raises(CannotVerifyError) as caught:
        laboratory.verify()
    assert "smoke.timeout_seconds" in caught.value.remedy


def test_missing_python_is_no_verdict(laboratory):
    """A Python that this host lacks is named, with how to get it."""
    laboratory.vllm()
    with pytest.raises(CannotVerifyError) as caught:
        laboratory.verify(Target(release="0.32.0", python="3.99"))
    assert "there is no Python 3.99 on this host" in caught.value.why
    assert "uv python install 3.99" in caught.value.remedy


def test_processor_below_the_floor_is_no_verdict(laboratory, monkeypatch):
    """On a processor without the variant's instructions the wheel is not convicted for dying."""
    cpuinfo = laboratory.root / "cpuinfo"
    cpuinfo.write_text("flags : fpu avx2 fma f16c\n")
    monkeypatch.setattr(behaviour, "CPUINFO", cpuinfo)
    laboratory.vllm(extra="import signal; os.kill(os.getpid(), signal.SIGILL)")
    with pytest.raises(CannotVerifyError, match="could not be verified") as caught:
        laboratory.verify(Target(release="0.32.0", python=HERE, variant="avx512"))
    assert "lacks avx512f" in caught.value.why


def test_plan_before_the_wheel_shows_every_check(laboratory):
    """A dry run on a fresh machine lists the checks, though there is no wheel yet."""
    plan = smoke.plan(TARGET, wheel=None, settings=laboratory.settings(), find_builder=no_builder)
    assert plan.unknown == ("wheel",)
    assert {check.title for check in behaviour.CHECKS} < {step.title for step in plan.steps}
    assert plan.as_json()["steps"]


def test_fingerprint_follows_wheel_python_and_settings(laboratory):
    """Another wheel, Python, setting or missing package is verified anew, the same again is not."""
    laboratory.vllm()
    first = laboratory.plan().fingerprint
    assert laboratory.plan().fingerprint == first
    others = {
        laboratory.plan(Target(release="0.32.0", python="3.13")).fingerprint,
        laboratory.plan(unavailable=["torchaudio"]).fingerprint,
    }
    laboratory.generate = False
    others.add(laboratory.plan().fingerprint)
    laboratory.generate = True
    laboratory.vllm(version="print('0.32.0')")
    others.add(laboratory.plan().fingerprint)
    assert len({first, *others} - {None}) == 4


@pytest.mark.parametrize("names", [(), ("a-1-py3-none-any.whl", "b-1-py3-none-any.whl")])
def test_folder_without_exactly_one_wheel_is_no_verdict(tmp_path, names):
    """A piece that holds no wheel, or two, is not guessed at."""
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CannotVerifyError, match="exactly one wheel"):
        smoke.wheel_of(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04truncated"])
def test_file_that_is_no_wheel_inside_is_no_verdict(laboratory, content):
    """A file that only has the name of a wheel is told from a bad wheel, without a traceback."""
    laboratory.vllm()
    smoke.wheel_of(laboratory.root / "wheel").write_bytes(content)
    with pytest.raises(CannotVerifyError, match="not a wheel that can be verified"):
        laboratory.verify()
