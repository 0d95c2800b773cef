"""The environment of CPU torch and build requirements, against an index on loopback and the real uv."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import asdict, replace
from importlib.resources import files

import pytest

from vllm_wheels.core.artifacts import tools
from vllm_wheels.core.artifacts.torch_env import RULE
from vllm_wheels.core.artifacts.torch_env.locking import Lock, lock, refuse_cuda
from vllm_wheels.core.artifacts.torch_env.planning import install, write_lock
from vllm_wheels.core.artifacts.torch_env.proof import prove
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import CudaTorchError, EnvironmentResolutionError, IndexUnreachableError, SettingsError
from vllm_wheels.core.index.arguments import index_arguments
from vllm_wheels.core.patches.upstream import Upstream
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core import making
from vllm_wheels_tests.core.making import action_context, drawn_up
from vllm_wheels_tests.fixtures import torchlike
from vllm_wheels_tests.fixtures.index import IndexServer

TARGET = Target(release="0.32.0", python="3.11")
UPSTREAM = Upstream(
    release="0.32.0",
    family="unified",
    torch="2.13.0",
    pythons=("3.11",),
    onednn_url="",
    onednn_tag="",
    extensions=("_C",),
    build_requirements=(
        "wheel",
        'torch==2.13.0+cpu; platform_machine == "x86_64"',
        'torch==2.13.0; sys_platform == "darwin"',
    ),
    runtime_requirements=("torchaudio", 'torchvision; platform_machine != "riscv64"'),
)
TORCH_ONLY = {"backend": "none", "packages": ("torch",)}
NOBODY = "http://127.0.0.1:9/simple/"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A package index as the public one is: torch and its companions only as they are built for CUDA."""
    folder = tmp_path_factory.mktemp("index")
    wheel = torchlike.wheel(folder, "wheel", "0.48.0", files={"wheel/__init__.py": ""})
    with IndexServer({**torchlike.cuda_wheels(folder), "wheel": [wheel]}) as server:
        yield server


@pytest.fixture(scope="module")
def torch_alone(tmp_path_factory):
    """A find-links folder with CPU torch and none of its companions."""
    return torchlike.torch(tmp_path_factory.mktemp("links")).parent


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch, tmp_path):
    """PyTorch's own index is out of reach, and the machine's own configuration is not used."""
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def plan(index, torch_alone, store):
    """Plans the environment; keyword arguments change single settings."""

    def run(*, upstream=UPSTREAM, rule=RULE, url=index.url, links=(str(torch_alone),), **changes):
        settings = load(index={"url": url, "find_links": links}, **changes)
        details = {"upstream": asdict(upstream)} if upstream else {}
        known = {"source": making.artifact("source", store.root, details=details)} if upstream else {}
        return drawn_up(rule, settings, store, target=TARGET, known=known)

    return run


@pytest.fixture
def make(store, index, torch_alone):
    """Carries a plan out and keeps the artifact."""

    def run(plan, url=index.url):
        settings = load(index={"url": url, "find_links": (str(torch_alone),)})
        return making.make(plan, settings, store)

    return run


def test_requirements_pin_wins_over_pyproject(plan):
    """The environment is made of the release's own build requirements, with CPU torch at the release's pin."""
    assert plan(torch=TORCH_ONLY).inputs["requirements"] == ["wheel", "torch==2.13.0+cpu"]


def test_environment_is_installed_and_proven(plan, make):
    """What was locked is what is installed, and the artifact tells torch, packages and lock."""
    artifact = make(plan(torch=TORCH_ONLY))
    assert artifact.facts["torch"] == "2.13.0+cpu"
    assert artifact.details["packages"] == [["torch", "2.13.0+cpu"], ["wheel", "0.48.0"]]
    assert artifact.facts["left_out"] == ["torchvision", "torchaudio"]
    assert (artifact.folder / "env/wheel/__init__.py").is_file()
    assert "--hash=sha256:" in (artifact.folder / "lock.txt").read_text()


def test_installed_files_share_nothing_with_the_cache(plan, make):
    """A change to uv's cache does not change a finished environment."""
    assert (make(plan(torch=TORCH_ONLY)).folder / "env/torch/version.py").stat().st_nlink == 1


def test_lock_decides_the_fingerprint(plan, tmp_path):
    """Another torch wheel of the same version is another environment."""
    other = torchlike.wheel(tmp_path / "other", "torch", "2.13.0+cpu", files={"torch/version.py": "other"}).parent
    assert plan(torch=TORCH_ONLY).key == plan(torch=TORCH_ONLY).key
    assert plan(torch=TORCH_ONLY).key != plan(torch=TORCH_ONLY, links=(str(other),)).key


def test_unread_source_leaves_the_plan_unknown(plan):
    """Before the source is there, the plan can be shown but has no key."""
    shown = plan(upstream=None)
    assert (shown.key, shown.unknown) == (None, ("source",))
    assert [step.action for step in shown.steps] == [write_lock, install, prove]


def test_all_torch_packages_by_default(plan, torch_folder):
    """Where CPU builds of all three torch packages are offered, all three go into the environment."""
    made = plan(torch={"backend": "none"}, links=(str(torch_folder),))
    assert made.inputs["left_out"] == []
    assert "torchvision==2.13.0+cpu" in made.steps[0].arguments.text


def test_leaving_packages_out_is_said(plan):
    """Torch packages that my settings leave out are named in a notice."""
    assert any("torchvision, torchaudio" in notice for notice in plan(torch=TORCH_ONLY).notices)


def test_cuda_companions_are_refused(plan):
    """The index's CUDA builds of torchvision and torchaudio are not put beside CPU torch."""
    with pytest.raises(EnvironmentResolutionError) as caught:
        plan(torch={"backend": "none"})
    assert "no CPU build of torchvision, torchaudio" in caught.value.what
    assert "torch.packages" in caught.value.remedy


def test_cuda_companions_are_left_out_where_substitutes_are_allowed(plan, make):
    """With substitutes allowed, companions without a CPU build are left out, with a notice and on record."""
    made = plan(torch={"backend": "none"}, substitutes="allow")
    assert any("left out" in notice for notice in made.notices)
    assert make(made).facts["left_out"] == ["torchvision", "torchaudio"]


def test_unreachable_cpu_index_is_an_error(plan):
    """Without PyTorch's own index I am told so, with both ways out."""
    with pytest.raises(EnvironmentResolutionError) as caught:
        plan()
    assert "PyTorch's own index" in caught.value.what
    assert 'torch.backend = "none"' in caught.value.remedy
    assert "--allow-substitutes" in caught.value.remedy


def test_unreachable_cpu_index_is_done_without_where_substitutes_are_allowed(plan):
    """With substitutes allowed, torch comes from the other places, and I am told."""
    made = plan(substitutes="allow")
    assert "PyTorch's own index" in made.notices[0]
    assert made.inputs["left_out"] == ["torchvision", "torchaudio"]
    assert "--torch-backend" not in made.steps[1].invocations[0].argv


def test_index_without_cpu_torch_is_a_cuda_error(plan):
    """An index that has torch only as it is built for CUDA is an error before anything is downloaded."""
    with pytest.raises(CudaTorchError) as caught:
        plan(torch=TORCH_ONLY, links=())
    assert "no CPU build torch==2.13.0+cpu" in caught.value.what


def test_part_of_cuda_in_the_lock_is_an_error(plan, tmp_path):
    """A torch that calls itself +cpu but pulls CUDA in is refused before anything is downloaded."""
    files = {"torch/version.py": ""}
    folder = torchlike.wheel(tmp_path / "x", "torch", "2.13.0+cpu", files=files, requires=["nvidia-cublas"]).parent
    with pytest.raises(CudaTorchError) as caught:
        plan(torch=TORCH_ONLY, links=(str(folder),))
    assert "nvidia-cublas 13.0.0" in caught.value.why


def test_triton_is_part_of_cuda_unless_it_is_built_for_cpus():
    """Triton of the package index is refused, triton-cpu is not."""
    refuse_cuda(Lock.parse("torch==2.13.0+cpu\ntriton==3.8.0+cpu\n"))
    with pytest.raises(CudaTorchError):
        refuse_cuda(Lock.parse("torch==2.13.0+cpu\ntriton==3.8.0\n"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda = '13.0'\n", CudaTorchError),
        ("__version__ = '2.13.0'\ncuda = None\n", CudaTorchError),
        ("__version__ = '2.13.0+cpu'\n", EnvironmentResolutionError),
        ("import os; cuda = os\n__version__ = (", EnvironmentResolutionError),
    ],
    ids=["says CUDA", "not +cpu", "says nothing", "not Python"],
)
def test_installed_torch_must_prove_itself(tmp_path, text, error):
    """A wheel that is called +cpu but is not a CPU build inside is found out, without importing it."""
    path = tmp_path / "env/torch/version.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(error):
        prove(action_context(tmp_path, load()), "{stage}/env")


def test_torch_version_can_be_overridden(plan, torch_folder):
    """Another torch than the release pins is taken if I say so, with a notice and as a deviation."""
    made = plan(torch={**TORCH_ONLY, "version": "2.10.0"}, links=(str(torch_folder),))
    assert "torch==2.10.0+cpu" in made.inputs["requirements"]
    assert "2.10.0 in place of 2.13.0" in made.steps[0].arguments.deviations[0]


@pytest.mark.parametrize(
    ("torch", "error", "remedy"),
    [
        ({"version": "2.13.0+cu130"}, CudaTorchError, "2.13.0"),
        ({"version": "latest"}, SettingsError, "2.13.0"),
        ({"packages": ("torchvision",)}, SettingsError, "torch.packages"),
    ],
    ids=["CUDA build", "no version", "without torch"],
)
def test_torch_settings_that_make_no_sense(plan, torch, error, remedy):
    """A torch setting that cannot work is refused with what to write instead."""
    with pytest.raises(error) as caught:
        plan(torch=torch)
    assert remedy in caught.value.remedy


def test_unmeetable_requirement_is_told_in_uvs_words(plan):
    """A requirement that the index cannot meet is named."""
    with pytest.raises(EnvironmentResolutionError) as caught:
        plan(torch=TORCH_ONLY, upstream=replace(UPSTREAM, build_requirements=("wheel>=99",)))
    assert "wheel>=99" in caught.value.why


def test_malformed_requirement_of_the_release_is_told(plan):
    """A line of the release's requirements that is none is named."""
    with pytest.raises(EnvironmentResolutionError) as caught:
        plan(torch=TORCH_ONLY, upstream=replace(UPSTREAM, build_requirements=("wheel ==== 1",)))
    assert "wheel ==== 1" in caught.value.what


def test_unreachable_index_is_told(plan):
    """A package index that does not answer is an error of its own."""
    with pytest.raises(IndexUnreachableError) as caught:
        plan(torch=TORCH_ONLY, url=NOBODY)
    assert NOBODY in caught.value.why


@pytest.mark.parametrize("failure", ["error", "garbage", "hang"])
def test_index_that_does_not_answer_like_one_is_told(index, failure):
    """An index that fails, talks nonsense or says nothing at all is named, and does not hold me up for ever."""
    places = ["--default-index", index.url]
    with index.failing("wheel", failure), pytest.raises(IndexUnreachableError) as caught:
        lock(["wheel"], python="3.11", index=places, backend=None, answer_seconds=1.0, environ=os.environ)
    assert index.url in caught.value.why


def test_download_that_breaks_off_is_a_network_error(plan, make, index):
    """A file that arrives in half is not installed, and the network is named as the cause."""
    made = plan(torch=TORCH_ONLY)
    with index.failing("wheel-0.48.0-py3-none-any.whl", "cut"), pytest.raises(IndexUnreachableError) as caught:
        make(made)
    assert "wheel==0.48.0" in caught.value.why


def test_index_out_of_reach_takes_the_environment_of_the_store(plan, make):
    """Offline, an environment that was made for the same requirements is used, and I am told when it was made."""
    artifact = make(plan(torch=TORCH_ONLY))
    offline = plan(torch=TORCH_ONLY, url=NOBODY)
    assert offline.key == artifact.key
    assert "cannot be reached" in offline.notices[-1]


def test_environment_of_the_store_outlives_an_update_of_this_program(plan, make):
    """Offline, also a newer vllm-wheels has the environment that an older one made, with the same versions."""
    artifact = make(plan(torch=TORCH_ONLY))
    updated = plan(rule=replace(RULE, constants=lambda _: {"code": "changed"}), torch=TORCH_ONLY, url=NOBODY)
    assert updated.key != artifact.key
    assert make(updated, url=NOBODY).version == artifact.version


def test_environment_with_substitutes_is_not_taken_where_they_are_refused(plan, make):
    """Offline, an environment that lacks torchvision does not stand in for one that is asked to have it."""
    make(plan(torch={"backend": "none"}, substitutes="allow"))
    with pytest.raises(IndexUnreachableError):
        plan(torch={"backend": "none"}, url=NOBODY)
    assert plan(torch={"backend": "none"}, url=NOBODY, substitutes="allow").inputs["left_out"]


def test_file_that_is_not_the_locked_one_is_refused(plan, make):
    """A file that was exchanged after locking is not installed."""
    made = plan(torch=TORCH_ONLY)
    locking, *rest = made.steps
    forged = re.sub("sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", locking.arguments.text)
    exchanged = replace(locking, arguments=replace(locking.arguments, text=forged))
    with pytest.raises(EnvironmentResolutionError) as caught:
        make(replace(made, steps=(exchanged, *rest)))
    assert "Hash mismatch" in caught.value.why


def test_settings_win_over_uv_and_uv_over_pip():
    """My settings come first, then uv's own variables, then pip's."""
    pip = {"PIP_INDEX_URL": "http://pip/", "PIP_EXTRA_INDEX_URL": "http://a/ http://b/", "PIP_FIND_LINKS": "/w"}
    strategy = ["--index-strategy", "unsafe-best-match"]
    of_pip = ["--default-index", "http://pip/", "--index", "http://a/", "--index", "http://b/", "--find-links", "/w"]
    assert index_arguments(load(), {}) == []
    assert index_arguments(load(), pip) == [*of_pip, *strategy]
    uv = {"UV_DEFAULT_INDEX": "http://uv/", "UV_INDEX": "http://c/", "UV_FIND_LINKS": "/u"}
    assert index_arguments(load(), {**pip, **uv}) == []
    mine = load(index={"url": "http://me/", "extra_urls": ("http://d/",), "find_links": ("/m",)})
    expected = ["--default-index", "http://me/", "--index", "http://d/", "--find-links", "/m", *strategy]
    assert index_arguments(mine, {**pip, **uv}) == expected


def test_index_of_cpu_builds_is_trusted_without_local_version():
    """What comes from an index of CPU builds is one, also where its version does not say so."""
    text = "torchaudio==2.11.0 \\\n    --hash=sha256:00\n    # from {origin}\n"
    assert Lock.parse(text.format(origin="http://mirror/whl/cpu")).packages[0].is_cpu_build
    assert not Lock.parse(text.format(origin="http://mirror/simple")).packages[0].is_cpu_build


def test_lock_text_names_no_place():
    """A lock is the same wherever its files came from."""
    text = "a==1 \\\n    --hash=sha256:00\n    # via b\n    # from {}\n"
    assert Lock.parse(text.format("http://one/")).sha256 == Lock.parse(text.format("http://two/")).sha256


def test_tools_do_not_depend_on_the_python(index, store, tmp_path):
    """The second Python's wheel is made with the first one's tools."""
    pinned = tomllib.loads(files(tools).joinpath("tools.toml").read_text("utf-8"))["requirements"]
    for name, _, version in (line.partition("==") for line in pinned):
        torchlike.wheel(tmp_path / "tools", name, version, files={f"{name}/__init__.py": ""})
    settings = load(index={"url": index.url, "find_links": (str(tmp_path / "tools"),)})
    targets = [Target(release="0.32.0", python=python) for python in ("3.11", "3.14")]
    plans = [drawn_up(tools.RULE, settings, store, target=target) for target in targets]
    assert plans[0].artifact == "tools"
    assert plans[0].key == plans[1].key
