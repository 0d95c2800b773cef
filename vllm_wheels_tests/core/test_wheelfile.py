"""Reading, unpacking and packing wheels."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import stat
import zipfile

import pytest

from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.packing import LEVEL, pack_wheel
from vllm_wheels.core.formats.wheel_name import wheel_in, wheel_tag
from vllm_wheels.core.formats.wheelfile import WheelFile, elf_files, unpack_wheel
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels_tests.core.small_wheels import EPOCH, make_wheel, rewrite, write_files

COMMAS = "vllm/configs/N=7168,K=8192,dtype=fp8.json"


@pytest.fixture
def wheel(tmp_path):
    files = {"vllm/__init__.py": "", "vllm/_C.abi3.so": b"\x7fELF code", COMMAS: "{}"}
    return make_wheel(tmp_path / "small", files)


def test_wheel_tells_its_name_version_tags_and_members(wheel):
    """I can ask a wheel what it is without unpacking it."""
    file = WheelFile.read(wheel)
    assert (file.name, file.version, file.dist_info) == ("vllm", "0.32.0+cpu", "vllm-0.32.0+cpu.dist-info")
    assert {str(tag) for tag in file.tags} == {str(tag) for tag in file.wheel_tags} == {"cp311-abi3-linux_x86_64"}
    assert file.members["vllm/_C.abi3.so"] == 9
    assert file.record[COMMAS].size == 2


def test_build_tag_is_read_from_the_file_name(wheel):
    """A wheel with a build number tells it."""
    renamed = wheel.rename(wheel.with_name("vllm-0.32.0+cpu-3fix-cp311-abi3-linux_x86_64.whl"))
    assert WheelFile.read(renamed).build == (3, "fix")
    assert wheel_tag(renamed) == "cp311-abi3-linux_x86_64"


def test_tags_that_disagree_are_readable(wheel):
    """A wheel whose file name promises another platform than WHEEL inside can be read, so that it can be convicted."""
    file = WheelFile.read(wheel.rename(wheel.with_name("vllm-0.32.0+cpu-cp311-abi3-manylinux_2_28_x86_64.whl")))
    assert file.tags != file.wheel_tags


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: path.write_text("<html>not found</html>"), "not a zip file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "truncated"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: rewrite(path, drop="METADATA"), "has no vllm-0.32.0+cpu.dist-info/METADATA"),
        (lambda path: rewrite(path, drop="RECORD"), "has no vllm-0.32.0+cpu.dist-info/RECORD"),
        (
            lambda path: rewrite(path, drop="RECORD", add={"vllm-0.32.0+cpu.dist-info/RECORD": "a,b\n"}),
            "path,hash,size",
        ),
        (lambda path: rewrite(path, add={"other-1.dist-info/METADATA": ""}), "2 dist-info folders"),
        (
            lambda path: rewrite(path, drop="METADATA", add={"vllm-0.32.0+cpu.dist-info/METADATA": "Name: x\n"}),
            "Invalid",
        ),
    ],
    ids=["web page", "truncated", "missing", "no METADATA", "no RECORD", "bad RECORD", "two dist-infos", "no version"],
)
def test_unsound_wheel_is_refused_with_the_reason(wheel, damage, why):
    """A file that is no sound wheel ends in one clear line, not in a traceback."""
    damage(wheel)
    with pytest.raises(WheelError) as caught:
        WheelFile.read(wheel)
    assert why in caught.value.why


def test_wheel_without_dist_info_is_refused(tmp_path):
    """A zip file that is called a wheel but has no dist-info is not one."""
    path = tmp_path / "vllm-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vllm/__init__.py", "")
    with pytest.raises(WheelError) as caught:
        WheelFile.read(path)
    assert "0 dist-info folders" in caught.value.why


def test_renamed_wheel_is_refused(wheel):
    """A wheel whose file name tells another version than its inside is refused."""
    with pytest.raises(WheelError) as caught:
        WheelFile.read(wheel.rename(wheel.with_name("vllm-0.33.0-cp311-abi3-linux_x86_64.whl")))
    assert "METADATA says vllm 0.32.0+cpu" in caught.value.why


def test_repeated_member_is_refused(wheel):
    """A zip file with two members of one name means different things to different readers."""
    with zipfile.ZipFile(wheel, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("vllm/__init__.py", "other")
    with pytest.raises(WheelError) as caught:
        WheelFile.read(wheel)
    assert "vllm/__init__.py" in caught.value.why


@pytest.mark.parametrize("name", ["../out.py", "/out.py", "vllm/../../out.py", "a\\out.py", "./a.py"])
def test_member_that_leaves_the_folder_is_refused(wheel, tmp_path, name):
    """A hostile wheel writes nothing outside the folder that I unpack it to, and nothing inside either."""
    rewrite(wheel, add={name: "x"})
    with pytest.raises(WheelError):
        unpack_wheel(wheel, tmp_path / "deep" / "unpacked")
    assert not list(tmp_path.rglob("out.py"))
    assert not (tmp_path / "deep" / "unpacked").exists()


def test_member_that_is_a_link_is_refused(wheel, tmp_path):
    """A wheel with a symbolic link in it is not unpacked."""
    with zipfile.ZipFile(wheel, "a") as archive:
        info = zipfile.ZipInfo("vllm/passwords")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(WheelError) as caught:
        unpack_wheel(wheel, tmp_path / "unpacked")
    assert "vllm/passwords is a link" in caught.value.why


def test_member_below_a_file_is_refused(wheel, tmp_path):
    """A wheel that uses one path as file and as folder is not unpacked."""
    rewrite(wheel, add={"vllm/__init__.py/x": ""})
    with pytest.raises(WheelError):
        unpack_wheel(wheel, tmp_path / "unpacked")


def test_huge_wheel_is_refused(wheel, tmp_path, monkeypatch):
    """A wheel that would fill the disk is refused before anything is written."""
    monkeypatch.setattr("vllm_wheels.core.host.limits.UNPACKED_BYTES", 100)
    with pytest.raises(WheelError) as caught:
        unpack_wheel(wheel, tmp_path / "unpacked")
    assert "more than 100 bytes" in caught.value.why
    assert not (tmp_path / "unpacked").exists()


def test_damaged_member_is_refused(wheel, tmp_path):
    """A wheel with one flipped byte in a member is noticed when it is unpacked."""
    content = bytearray(wheel.read_bytes())
    content[content.index(b"vllm/_C.abi3.so") + len("vllm/_C.abi3.so") + 3] ^= 0xFF
    wheel.write_bytes(content)
    with pytest.raises(WheelError) as caught:
        unpack_wheel(wheel, tmp_path / "unpacked")
    assert "damaged" in caught.value.why


def test_unpacked_and_packed_again_is_the_same_file(wheel, tmp_path):
    """Taking a wheel apart and packing it again gives the same bytes, whatever time it is and whatever the umask."""
    unpack_wheel(wheel, tmp_path / "unpacked")
    for path in (tmp_path / "unpacked").rglob("*.py"):
        path.chmod(0o600)
    again = pack_wheel(
        tmp_path / "unpacked",
        tmp_path / "again",
        distribution="vllm",
        version="0.32.0+cpu",
        tag="cp311-abi3-linux_x86_64",
        epoch=EPOCH,
    )
    assert again.name == wheel.name
    assert sha256_of(again) == sha256_of(wheel)


def test_packed_members_are_those_that_zipfile_itself_would_write(wheel, tmp_path):
    """Members are deflated side by side; the file is the same as from one after the other."""
    plain = tmp_path / "plain.whl"
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(plain, "w") as again:
        for info in archive.infolist():
            content, copied = archive.read(info), zipfile.ZipInfo(info.filename, info.date_time)
            copied.external_attr, copied.create_system = info.external_attr, info.create_system
            copied.compress_type = zipfile.ZIP_DEFLATED
            again.writestr(copied, content, compresslevel=LEVEL)
    assert plain.read_bytes() == wheel.read_bytes()


def test_record_lists_every_member_with_its_hash(wheel):
    """RECORD is right for every file, also for names with commas."""
    with zipfile.ZipFile(wheel) as archive:
        rows = list(csv.reader(io.StringIO(archive.read("vllm-0.32.0+cpu.dist-info/RECORD").decode())))
        assert {row[0] for row in rows} == set(archive.namelist())
        digest = base64.urlsafe_b64encode(hashlib.sha256(archive.read(COMMAS)).digest()).rstrip(b"=").decode()
    assert [COMMAS, f"sha256={digest}", "2"] in rows
    assert rows[-1] == ["vllm-0.32.0+cpu.dist-info/RECORD", "", ""]


def test_dist_info_comes_last_and_record_the_very_last(wheel):
    """Installers may read dist-info at the end of the file (PEP 427)."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    inside = ["dist-info" in name for name in names]
    assert inside == sorted(inside)
    assert names[-1].endswith("RECORD")


def test_executables_stay_executable(tmp_path):
    """A program in the wheel can still be started after packing and unpacking; other modes mean nothing."""
    contents = write_files(tmp_path / "c", {"vllm/tool": "#!", "vllm/data": "", "vllm-1.dist-info/METADATA": ""})
    (contents / "vllm/tool").chmod(0o700)
    wheel = pack_wheel(contents, tmp_path, distribution="vllm", version="1", tag="py3-none-any", epoch=EPOCH)
    unpack_wheel(wheel, tmp_path / "unpacked")
    assert (tmp_path / "unpacked/vllm/tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "unpacked/vllm/data").stat().st_mode & 0o777 == 0o644


def test_time_before_1980_becomes_1980(tmp_path):
    """A zip file knows no earlier time than 1980; an epoch of zero does not break packing."""
    contents = write_files(tmp_path / "c", {"vllm-1.dist-info/METADATA": ""})
    wheel = pack_wheel(contents, tmp_path, distribution="vllm", version="1", tag="py3-none-any", epoch=0)
    with zipfile.ZipFile(wheel) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_compressed_tags_are_written_out_in_wheel(tmp_path):
    """WHEEL names each tag that a file name with several platforms stands for."""
    contents = write_files(tmp_path / "c", {"a_b-1.dist-info/METADATA": ""})
    tag = "cp311-abi3-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
    wheel = pack_wheel(contents, tmp_path, distribution="a-b", version="1", tag=tag, epoch=EPOCH)
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("a_b-1.dist-info/WHEEL").decode()
    assert text.count("Tag: ") == 2
    assert "Tag: cp311-abi3-manylinux_2_28_x86_64\n" in text
    assert wheel_tag(wheel) == tag


def test_dist_info_of_another_name_is_not_packed(tmp_path):
    """A wheel is not packed under a name that its dist-info does not bear."""
    contents = write_files(tmp_path / "c", {"vllm-1.dist-info/METADATA": ""})
    with pytest.raises(WheelError) as caught:
        pack_wheel(contents, tmp_path, distribution="vllm", version="2", tag="py3-none-any", epoch=EPOCH)
    assert "vllm-1.dist-info, not vllm-2.dist-info" in caught.value.why
    assert not list(tmp_path.glob("*.whl"))


def test_compiled_code_is_found_by_its_content(tmp_path):
    """Compiled code is found whatever its file is called."""
    write_files(tmp_path, {"a/b": b"\x7fELF...", "a/c.so": "text", "d": ""})
    assert elf_files(tmp_path) == [tmp_path / "a/b"]


def test_folder_with_two_wheels_has_not_the_one(tmp_path):
    """Where exactly one wheel is expected, two are an error that names them."""
    write_files(tmp_path, {"a-1-py3-none-any.whl": "", "b-1-py3-none-any.whl": ""})
    with pytest.raises(WheelError) as caught:
        wheel_in(tmp_path)
    assert "a-1-py3-none-any.whl, b-1-py3-none-any.whl" in caught.value.why
