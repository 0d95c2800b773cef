"""What is no wheel ends with status 2 and one line; nothing is written outside the temporary folder."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify import opening
from vllm_wheels.core.verify.opening import opened
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library

NAME = "vllm_cpu-0.32.0-cp311-abi3-manylinux_2_28_x86_64.whl"
DIST_INFO = "vllm_cpu-0.32.0.dist-info"


def bytes_of(content):
    return lambda folder: _written(folder / NAME, content)


def _written(path, content):
    path.write_bytes(content)
    return path


def zipped(*members, deflated=False):
    def write(folder):
        path = folder / NAME
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return path

    return write


def truncated(folder):
    path = Recipe().write(folder)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def with_member(name, content=b"x"):
    def write(folder):
        path = Recipe().write(folder)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, content)
        return path

    return write


def duplicate(folder):
    path = Recipe().write(folder)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("vllm/__init__.py", "again")
    return path


def link(folder):
    path = Recipe().write(folder)
    entry = zipfile.ZipInfo("vllm/link")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, "/etc/passwd")
    return path


def damaged_member(folder):
    path = Recipe().write(folder)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("vllm/_C.abi3.so").header_offset
    content[start + 200 : start + 300] = bytes(100)
    path.write_bytes(content)
    return path


def elf(change):
    return lambda folder: Recipe(code=change(bytearray(library()))).write(folder)


def cut_elf(code):
    return bytes(code[:500])


def wild_sections(code):
    struct.pack_into("<Q", code, 0x28, 2**63)
    return bytes(code)


def other_machine(code):
    struct.pack_into("<H", code, 0x12, 183)
    return bytes(code)


def sparse(size):
    def write(folder):
        path = folder / NAME
        with path.open("wb") as stream:
            stream.truncate(size)
        return path

    return write


def bomb(folder):
    path = folder / NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            with archive.open(f"vllm/{number}", "w", force_zip64=True) as stream:
                for _ in range(64):
                    stream.write(bytes(2**20))
    return path


def fifo(folder):
    os.mkfifo(folder / NAME)
    return folder / NAME


def folder_of_that_name(folder):
    (folder / NAME).mkdir()
    return folder / NAME


def renamed(name):
    return lambda folder: Recipe().write(folder).rename(folder / name)


BAD = {
    "empty": bytes_of(b""),
    "no zip": bytes_of(b"this is text"),
    "beginning of a zip": bytes_of(b"PK\x03\x04" + bytes(100)),
    "truncated": truncated,
    "zip without dist-info": zipped(("vllm/__init__.py", "")),
    "two dist-infos": with_member("other-1.dist-info/METADATA"),
    "no METADATA": zipped((f"{DIST_INFO}/RECORD", ""), (f"{DIST_INFO}/WHEEL", "")),
    "zip bomb": bomb,
    "absolute path": with_member("/etc/vllm-was-here"),
    "path upwards": with_member("../../vllm-was-here"),
    "name of 300 letters": with_member("v" * 300),
    "link": link,
    "duplicate names": duplicate,
    "member below a file": with_member("vllm/__init__.py/inside"),
    "damaged member": damaged_member,
    "ELF cut off": elf(cut_elf),
    "ELF with wild offsets": elf(wild_sections),
    "ELF for another machine": elf(other_machine),
    "2 GB of nothing": sparse(2 * 2**30),
    "1 GB of nothing": sparse(2**30),
    "folder": folder_of_that_name,
    "pipe": fifo,
    "missing": lambda folder: folder / NAME,
    "source archive": lambda folder: _written(folder / "vllm-0.32.0.tar.gz", b"x"),
    "no wheel's name": renamed("vllm.whl"),
    "no version": renamed("vllm_cpu-x-py3-none-any.whl"),
}


@pytest.mark.parametrize("make", list(BAD.values()), ids=list(BAD))
def test_what_is_no_wheel_is_refused_with_a_reason(tmp_path, monkeypatch, make):
    """I am told in one line what is wrong with the file, and it leaves nothing behind."""
    scratch, place = tmp_path / "scratch", tmp_path / "place"
    scratch.mkdir()
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = make(place)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CannotVerifyError) as caught, opened(path, settings=Settings(), runner=Runner()):
        pytest.fail("it was taken for a wheel")
    assert caught.value.why
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/etc/vllm-was-here").exists()


def test_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    """What would fill the disk is told by its table of contents."""
    monkeypatch.setattr(opening, "unpack_wheel", lambda *_: pytest.fail("it was unpacked"))
    with (
        pytest.raises(CannotVerifyError, match="verified") as caught,
        opened(bomb(tmp_path), settings=Settings(), runner=Runner()),
    ):
        pass
    assert "once unpacked" in caught.value.why


def run(*arguments, folder, **environment):
    command = [sys.executable, "-c", "from vllm_wheels.cli import main; main()", "verify", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=False
    )


def test_command_ends_with_2_and_one_line_per_file(tmp_path):
    """A script can tell bad input from a bad wheel, and a person reads a line, not a traceback."""
    paths = [BAD["no zip"](tmp_path), BAD["source archive"](tmp_path), tmp_path / "nothing.whl"]
    done = run(*map(str, paths), "--no-install", folder=tmp_path)
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert len(lines) == len(paths)
    assert all(line.startswith("could not judge ") and "; do: " in line for line in lines)


def test_unreadable_file_ends_with_2(tmp_path):
    """A file that I may not read is named, with the reason."""
    path = Recipe().write(tmp_path)
    path.chmod(0)
    code = (
        "import sys; from pathlib import Path\n"
        "from vllm_wheels.core.settings import Settings\n"
        "from vllm_wheels.core.verify.verdicts import verify\n"
        "from vllm_wheels.core.host.processes import Runner\n"
        "import os; os.getuid() or os.setuid(65534)\n"
        "found = verify(sys.argv[1:], settings=Settings(), runner=Runner(), install=False, say=print)\n"
        "print([each.why for each in found.unjudged]); sys.exit(found.exit_code)\n"
    )
    # Root reads everything, so the test becomes nobody, who must be able to come here.
    for parent in path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )
    assert done.returncode == 2, done.stderr
    assert "Permission denied" in done.stdout
