"""Archives are unpacked safely or not at all, and trees have a hash of their content."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from vllm_wheels.core.errors import SourceError, UnsafeArchiveError
from vllm_wheels.core.host import archives, limits
from vllm_wheels.core.host.archives import refuse_links_out, tree_hash, unpack


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar_of(path: Path, *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for entry in members:
            info, body = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def zip_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as container:
        for name, body in members:
            container.writestr(name, body)
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


GOOD = (
    member("v-1/", type=tarfile.DIRTYPE, mode=0o755),
    (member("v-1/a/b.txt"), b"text"),
    (member("v-1/run", mode=0o6755), b"#!"),
)


@pytest.mark.parametrize(("name", "mode"), [("v.tar.gz", "w:gz"), ("v.tgz", "w:gz"), ("v.tar.xz", "w:xz")])
def test_tar_loses_its_top_folder(tmp_path, name, mode):
    """What lies in the archive's single folder lies in mine afterwards."""
    unpack(tar_of(tmp_path / name, *GOOD, mode=mode), tmp_path / "tree")
    assert (tmp_path / "tree/a/b.txt").read_text() == "text"


def test_zip_loses_its_top_folder(tmp_path):
    """A zip file is as good as a tar file."""
    unpack(zip_of(tmp_path / "v.zip", ("v-1/", b""), ("v-1/a/b.txt", b"text")), tmp_path / "tree")
    assert (tmp_path / "tree/a/b.txt").read_text() == "text"


def test_programs_stay_programs_and_nothing_becomes_setuid(tmp_path):
    """A file keeps its executable bit, and no more of its mode than that."""
    unpack(tar_of(tmp_path / "v.tar.gz", *GOOD), tmp_path / "tree")
    modes = [stat.S_IMODE((tmp_path / "tree" / name).stat().st_mode) for name in ("run", "a/b.txt")]
    assert modes == [0o755, 0o644]


def test_links_that_stay_inside_are_kept(tmp_path):
    """A link to a neighbour is still that link."""
    unpack(tar_of(tmp_path / "v.tar.gz", *GOOD, link("v-1/a/up", "../run")), tmp_path / "tree")
    assert (tmp_path / "tree/a/up").read_bytes() == b"#!"


def test_hard_links_become_files(tmp_path):
    """A hard link to an earlier file is a file with the same bytes and bit."""
    hard = member("v-1/again", type=tarfile.LNKTYPE, linkname="v-1/run")
    unpack(tar_of(tmp_path / "v.tar.gz", *GOOD, hard), tmp_path / "tree")
    assert (tmp_path / "tree/again").read_bytes() == b"#!"
    assert os.access(tmp_path / "tree/again", os.X_OK)


HOSTILE = {
    "absolute path": (member("/v-1/x"), b"x"),
    "path that climbs": (member("v-1/../../x"), b"x"),
    "second top folder": (member("other/x"), b"x"),
    "file in place of the top folder": (member("v-1"), b"x"),
    "absolute link": link("v-1/x", "/etc/passwd"),
    "link out": link("v-1/a/x", "../../../etc"),
    "link that climbs after going down": link("v-1/x", "a/../../etc"),
    "empty link": link("v-1/x", ""),
    "hard link out": member("v-1/x", type=tarfile.LNKTYPE, linkname="v-1/../../etc/passwd"),
    "hard link to nothing": member("v-1/x", type=tarfile.LNKTYPE, linkname="v-1/none"),
    "device": member("v-1/x", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "named pipe": member("v-1/x", type=tarfile.FIFOTYPE),
    "the same file again": (member("v-1/run"), b"other"),
    "file below a file": (member("v-1/run/x"), b"x"),
    "folder in place of a file": member("v-1/run", type=tarfile.DIRTYPE),
    "name too long": (member("v-1/" + "x" * 300), b"x"),
}


@pytest.fixture(params=[True, False], ids=["filter", "no filter"])
def python(request, monkeypatch) -> None:
    """One with the data filter of PEP 706, and one without, as Debian 12 has."""
    if not request.param:
        monkeypatch.setattr(archives, "DATA_FILTER", None)


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_hostile_member_is_named(tmp_path, hostile):
    """A member that would leave the folder is refused, and I am told which one of which archive."""
    archive = tar_of(tmp_path / "v.tar.gz", *GOOD, hostile)
    with pytest.raises(UnsafeArchiveError) as caught:
        unpack(archive, tmp_path / "inner" / "tree")
    info = hostile[0] if isinstance(hostile, tuple) else hostile
    assert "v.tar.gz" in caught.value.what
    assert Path(info.name).name in caught.value.what
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner", "v.tar.gz"]


@pytest.mark.usefixtures("python")
def test_nothing_is_written_through_a_link(tmp_path):
    """A link followed by a file below it writes nowhere, even where the link itself stays inside."""
    archive = tar_of(tmp_path / "v.tar.gz", *GOOD, link("v-1/door", "a"), (member("v-1/door/x"), b"x"))
    with pytest.raises(UnsafeArchiveError, match="door"):
        unpack(archive, tmp_path / "tree")
    assert not (tmp_path / "tree/a/x").exists()


@pytest.mark.usefixtures("python")
def test_link_below_a_link_is_refused(tmp_path):
    """A link that would lie deeper than it seems, behind another link, could climb out and is refused."""
    door = link("v-1/a/b/door", "../..")
    archive = tar_of(
        tmp_path / "v.tar.gz", member("v-1/a/b", type=tarfile.DIRTYPE), door, link(door.name + "/x", "../../../y")
    )
    with pytest.raises(UnsafeArchiveError, match="door/x"):
        unpack(archive, tmp_path / "tree")


@pytest.mark.usefixtures("python")
def test_chain_of_links_does_not_lead_out(tmp_path):
    """Links that are harmless one by one and lead out together are refused."""
    deep = link("v-1/a/b/top", "../..")
    archive = tar_of(tmp_path / "v.tar.gz", member("v-1/a", type=tarfile.DIRTYPE), deep, link("v-1/x", "a/b/top/../y"))
    with pytest.raises(UnsafeArchiveError, match="v-1/x"):
        unpack(archive, tmp_path / "tree")


@pytest.mark.parametrize("hostile", ["/x", "../x", "v-1/../../x"])
def test_hostile_zip_member_is_named(tmp_path, hostile):
    """A zip file may not leave the folder either."""
    with pytest.raises(UnsafeArchiveError, match="x"):
        unpack(zip_of(tmp_path / "v.zip", ("v-1/a", b"a"), (hostile, b"x")), tmp_path / "tree")
    assert not (tmp_path / "x").exists()


def test_zip_link_out_is_refused(tmp_path):
    """A link in a zip file is a link."""
    info = zipfile.ZipInfo("v-1/x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(UnsafeArchiveError, match="leads out"):
        unpack(zip_of(tmp_path / "v.zip", (info, b"/etc/passwd")), tmp_path / "tree")


def test_zip_link_whose_text_is_no_path_is_refused(tmp_path):
    """A link that no file system could hold is the archive's fault, and named."""
    info = zipfile.ZipInfo("v-1/x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(UnsafeArchiveError, match="v-1/x"):
        unpack(zip_of(tmp_path / "v.zip", (info, b"a\0b")), tmp_path / "tree")


@pytest.mark.parametrize("kind", ["v.tar.gz", "v.zip"])
def test_archive_that_explodes_is_stopped(tmp_path, monkeypatch, kind):
    """A small archive that unpacks to more than the limit is refused before the disk is full."""
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 1000)
    body = b"\0" * 5000
    archive = (
        zip_of(tmp_path / kind, ("v-1/x", body))
        if kind == "v.zip"
        else tar_of(tmp_path / kind, (member("v-1/x"), body))
    )
    with pytest.raises(UnsafeArchiveError, match="v-1/x"):
        unpack(archive, tmp_path / "tree")
    assert not (tmp_path / "tree/x").exists()


@pytest.mark.parametrize("kind", ["v.tar.gz", "v.zip"])
def test_flood_of_members_is_refused_before_anything_is_written(tmp_path, monkeypatch, kind):
    """An archive of a million tiny files costs me neither minutes nor inodes."""
    monkeypatch.setattr(limits, "MEMBERS", 20)
    names = [f"v-1/{number}" for number in range(30)]
    archive = (
        zip_of(tmp_path / kind, *((name, b"") for name in names))
        if kind == "v.zip"
        else tar_of(tmp_path / kind, *(member(name) for name in names))
    )
    with pytest.raises(UnsafeArchiveError, match="v-1/20") as caught:
        unpack(archive, tmp_path / "tree")
    assert "more than 20 members" in caught.value.why
    assert not any((tmp_path / "tree").iterdir())


@pytest.mark.parametrize("kind", ["v.tar.gz", "v.zip"])
def test_path_that_is_too_deep_is_refused(tmp_path, kind):
    """A thousand folders in each other end in one of our errors."""
    name = "v-1/" + "a/" * 1500 + "x"
    archive = zip_of(tmp_path / kind, (name, b"")) if kind == "v.zip" else tar_of(tmp_path / kind, member(name))
    with pytest.raises(UnsafeArchiveError) as caught:
        unpack(archive, tmp_path / "tree")
    assert "more than 100 folders" in caught.value.why


@pytest.mark.parametrize("end", [10, 200, -600, -5])
def test_truncated_tar_is_refused(tmp_path, end):
    """An archive that ends too early, anywhere, is not taken for a whole one."""
    whole = tar_of(tmp_path / "whole.tar.gz", *GOOD, (member("v-1/big"), os.urandom(20_000))).read_bytes()
    (tmp_path / "v.tar.gz").write_bytes(whole[:end])
    with pytest.raises(UnsafeArchiveError, match=r"v\.tar\.gz"):
        unpack(tmp_path / "v.tar.gz", tmp_path / "tree")


def test_tar_cut_cleanly_between_members_is_refused(tmp_path):
    """Even where the compressed stream is whole, a tar without its end is not."""
    plain = gzip.decompress(tar_of(tmp_path / "whole.tar.gz", *GOOD).read_bytes())
    (tmp_path / "v.tar.gz").write_bytes(gzip.compress(plain[: 3 * 512]))
    with pytest.raises(UnsafeArchiveError, match="is not unpacked") as caught:
        unpack(tmp_path / "v.tar.gz", tmp_path / "tree")
    assert "end" in caught.value.why


def test_tar_with_a_broken_header_is_refused(tmp_path):
    """A flipped bit in the middle is not taken for the archive's end."""
    plain = bytearray(gzip.decompress(tar_of(tmp_path / "whole.tar.gz", *GOOD).read_bytes()))
    plain[3 * 512 + 10] ^= 0xFF
    (tmp_path / "v.tar.gz").write_bytes(gzip.compress(bytes(plain)))
    with pytest.raises(UnsafeArchiveError, match=r"v\.tar\.gz"):
        unpack(tmp_path / "v.tar.gz", tmp_path / "tree")


@pytest.mark.parametrize("name", ["v.tar.gz", "v.tar.xz", "v.zip"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\0" * 4096], ids=["empty", "page", "zeros"])
def test_what_is_no_archive_is_refused(tmp_path, name, content):
    """An error page that was saved under an archive's name is called what it is."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsafeArchiveError, match="v"):
        unpack(tmp_path / name, tmp_path / "tree")


def sample(folder: Path) -> Path:
    (folder / "a").mkdir(parents=True)
    (folder / "a/b").write_text("text")
    (folder / "run").write_text("#!")
    (folder / "run").chmod(0o755)
    (folder / "to").symlink_to("run")
    return folder


def test_equal_trees_have_equal_hashes(tmp_path):
    """Where a tree lies, and when it was written, does not count; neither do git's and Python's own folders."""
    one, other = sample(tmp_path / "one"), sample(tmp_path / "two/other")
    os.utime(other / "run", (0, 0))
    (other / "a/__pycache__").mkdir()
    (other / "a/__pycache__/x.pyc").write_text("x")
    (other / ".git").mkdir()
    (other / ".git/HEAD").write_text("x")
    assert tree_hash(one) == tree_hash(other)


CHANGES = {
    "bytes": lambda tree: (tree / "a/b").write_text("Text"),
    "name": lambda tree: (tree / "a/b").rename(tree / "a/c"),
    "place": lambda tree: (tree / "a/b").rename(tree / "b"),
    "executable bit": lambda tree: (tree / "run").chmod(0o644),
    "another file": lambda tree: (tree / "a/new").touch(),
    "link": lambda tree: ((tree / "to").unlink(), (tree / "to").symlink_to("a/b")),
    "file for a link": lambda tree: ((tree / "to").unlink(), (tree / "to").write_text("run")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_changes_the_hash(tmp_path, change):
    """A tree that differs in anything that a build could see has another hash."""
    tree = sample(tmp_path / "tree")
    before = tree_hash(tree)
    change(tree)
    assert tree_hash(tree) != before


def test_pipe_in_a_tree_is_refused(tmp_path):
    """A named pipe in a local tree is an error and not a wait for ever."""
    os.mkfifo(sample(tmp_path / "tree") / "pipe")
    with pytest.raises(SourceError, match="pipe"):
        tree_hash(tmp_path / "tree")


def test_link_out_of_a_local_tree_is_refused(tmp_path):
    """A local tree whose link leads out is refused with the link's name."""
    tree = sample(tmp_path / "tree")
    refuse_links_out(tree)
    (tree / "a/out").symlink_to("../../secret")
    with pytest.raises(SourceError, match="a/out"):
        refuse_links_out(tree)
