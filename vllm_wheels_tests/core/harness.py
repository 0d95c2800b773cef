"""Wheels of a few hundred bytes that stand for vLLM and torch, and the whole smoke path over them on this host."""

import shutil
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from vllm_wheels.core.engine.plan import ActionContext, carry_out
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.core.verify import planning as smoke
from vllm_wheels.core.verify.report import Report, read_report
from vllm_wheels.core.verify.rule import RULE
from vllm_wheels.core.verify.runs.models import right_answers

HERE = "{}.{}".format(*sys.version_info)
TARGET = Target(release="0.32.0", python=HERE)

VLLM = """
import os
from types import SimpleNamespace

__version__ = "0.32.0"

class SamplingParams:
    def __init__(self, **wishes):
        assert wishes["ignore_eos"]

class LLM:
    runs = 0
    def __init__(self, model, **wishes):
        assert open(os.path.join(model, "config.json")).read()
    def generate(self, prompts, params, use_tqdm):
        self.runs += 1
        results = []
        for tokens, places in zip({right}["tokens"], {right}["likelihoods"]):
            logprobs = [
                {{int(token): SimpleNamespace(logprob=number) for token, number in place.items()}} for place in places
            ]
            output = SimpleNamespace(token_ids=tokens, logprobs=logprobs)
            {generate}
            results.append(SimpleNamespace(outputs=[output]))
        return results[: len(prompts)]
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
cpu = SimpleNamespace(_is_amx_tile_supported=lambda: False)
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
class Harness:
    """Makes stand-ins for vLLM and torch, and verifies them."""

    root: Path
    generate: bool = True
    models: str = "llama-bf16"
    timeout_seconds: float = 60.0
    index: str = ""
    backend: str = "none"
    substitutes: str = "refuse"
    packages: tuple[str, ...] = ("torch",)

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
        files=(),
        **more,
    ):
        """Makes the wheel; each argument is a place where a defect can be."""
        content = {
            "vllm/__init__.py": VLLM.format(generate=generate, extra=extra, right=right_answers()["llama"]),
            "vllm/platforms/__init__.py": PLATFORMS.format(device=device),
            "vllm/cli.py": CLI.format(version=version, serve=serve),
            **dict(files),
        }
        scripts = "[console_scripts]\nvllm = vllm.cli:main\n"
        folder = self.root / "wheel"
        write_wheel(folder, "vllm_cpu_test", "0.32.0", content, requires=requires, scripts=scripts, inner=inner, **more)

    def settings(self):
        """Everything from this folder, nothing from the network."""
        empty = self.root / "index"
        empty.mkdir(exist_ok=True)
        return Settings(
            state_folder=self.root / "state",
            index={"url": self.index or empty.as_uri(), "find_links": [str(self.root / "links")]},
            torch={"backend": self.backend, "packages": self.packages},
            substitutes=self.substitutes,
            smoke={"generate": self.generate, "models": self.models, "timeout_seconds": self.timeout_seconds},
        )

    def plan(self, target=TARGET, *, unavailable=()):
        """The plan over the wheel, with the key that the build graph would give it."""
        folder, settings = self.root / "wheel", self.settings()
        known = {
            "wheel": artifact("wheel", folder, {"wheels": [sha256_of(path) for path in folder.glob("*.whl")]}),
            "torch_env": artifact("torch_env", folder, {"left_out": list(unavailable)}),
        }
        context = PlanContext(
            settings=settings,
            store=Store(settings.state_folder / "store"),
            target=target,
            known=known,
            find_builder=no_builder,
        )
        needs = {"wheel": known["wheel"].version}
        return replace(smoke.plan(context), needs=needs, code=RULE.code_version(target.variant))

    def verify(self, target=TARGET) -> Report:
        """Carries the plan out, and gives the report."""
        stage = self.root / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
        context = ActionContext(
            stage=stage, settings=self.settings(), runner=Runner(), find_builder=no_builder, say=lambda _: None
        )
        self.made = carry_out(self.plan(target).steps, context)
        return read_report(stage)


def artifact(kind, folder, facts):
    """An artifact as the store would give it."""
    return Artifact(
        kind=kind,
        key="k",
        folder=folder,
        made_for={"release": TARGET.release, "python": TARGET.python, "variant": None},
        made_from={},
        inputs={},
        needs={},
        code="",
        outside="",
        facts=facts,
        details={},
        made_at=0.0,
        seconds=0.0,
    )


def no_builder():
    pytest.fail("a portable wheel was taken to a builder")


def convicted(report):
    return [finding.check for finding in report.findings if finding.verdict == "convicted"]


def finding(report, check):
    return next(each for each in report.findings if each.check == check)
