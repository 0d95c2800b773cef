"""The wheel's requirements: what an index accepts and an installer can meet."""

from __future__ import annotations

import pytest

from vllm_wheels.core.errors import PatchError
from vllm_wheels.core.patches.pyproject import optional_dependencies
from vllm_wheels.core.patches.requirements import Requirements, Rewriting
from vllm_wheels.core.settings import Settings, TorchSettings, WheelSettings
from vllm_wheels_tests.core.patch_tree import tree, upstream, write


@pytest.fixture(autouse=True)
def _no_settings_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rewrite(*lines: str, settings: Settings | None = None) -> Requirements:
    """The lines rewritten for Pythons 3.11 and 3.12, torch 2.13.0 and the distribution vllm-cpu."""
    return rewriting(settings=settings).rewritten(lines)


def rewriting(*lines: str, settings: Settings | None = None) -> Rewriting:
    """What rewrites the requirements of a release with these lines."""
    demands = upstream(release="0.32.0", runtime_requirements=lines)
    return Rewriting(upstream=demands, distribution="vllm-cpu", settings=settings or Settings())


def test_torch_is_required_without_its_local_version():
    """My wheel installs from the public index alone."""
    assert rewrite("torch==2.13.0+cpu; platform_machine == 'x86_64'").kept == (
        'torch==2.13.0; platform_machine == "x86_64"',
    )


def test_torch_keeps_its_local_version_where_i_ask_for_it():
    """With torch_requirement = "local" the wheel insists on the CPU build."""
    settings = Settings(wheel=WheelSettings(torch_requirement="local"))
    assert rewrite("torch==2.13.0+cpu", settings=settings).kept == ("torch==2.13.0+cpu",)


@pytest.mark.parametrize(("kind", "expected"), [("plain", "torch==2.13.1"), ("local", "torch==2.13.1+cpu")])
def test_other_torch_is_required_where_i_built_against_it(kind, expected):
    """A wheel built against another torch requires that one, and no torchvision of upstream's."""
    settings = Settings(torch=TorchSettings(version="2.13.1"), wheel=WheelSettings(torch_requirement=kind))
    found = rewrite("torch==2.13.0+cpu", "torchvision==0.28.0", "torchaudio", settings=settings)
    assert found.kept == (expected, "torchvision", "torchaudio")
    assert len(found.notices) == 1


def test_torchvision_stays_required_when_left_out_of_the_environment():
    """What my build environment lacks, the wheel still needs."""
    settings = Settings(torch=TorchSettings(packages=("torch",)))
    found = rewrite("torchvision; platform_machine != 'riscv64'", settings=settings)
    assert found.kept == ('torchvision; platform_machine != "riscv64"',)


def test_requirement_of_other_platforms_is_left_out_quietly():
    """A pin for macOS does not clutter a wheel for Linux."""
    line = "torch==2.13.0; platform_system == 'Darwin' or platform_machine == 'ppc64le'"
    assert rewrite("torch==2.13.0+cpu", line) == Requirements(kept=("torch==2.13.0",), dropped=(line,), notices=())


def test_requirement_of_one_supported_python_stays():
    """A requirement of Python 3.12 alone is kept with its marker; one of 3.9 is not."""
    found = rewrite("six; python_version > '3.11'", "old; python_version == '3.9'")
    assert found.kept == ('six; python_version > "3.11"',)


def test_url_requirement_is_dropped_and_reported_once():
    """The index would refuse it, so it is not in the wheel, and I am told."""
    lines = [f"triton @ https://example.org/triton-{tag}.whl ; python_version == '{tag}'" for tag in ("3.11", "3.12")]
    found = rewrite(*lines)
    assert (found.kept, found.dropped) == ((), tuple(lines))
    assert len(found.notices) == 1
    assert found.notices[0].startswith("triton is not required")


@pytest.mark.parametrize(
    "asked", ["torch>=2.13,<2.14", "torch~=2.13.0", "torch==2.13.*", "torch @ https://example.org/torch.whl", "torch"]
)
def test_torch_is_required_as_it_was_compiled_against_however_upstream_writes_it(asked):
    """A wheel never meets another torch than the one that its extensions are bound to, and I am told of the change."""
    found = rewrite(asked)
    assert (found.kept, found.dropped) == (("torch==2.13.0",), ())
    assert "compiled against" in found.notices[0]


def test_torch_is_required_even_where_upstream_forgets_it():
    """A release that names no torch beside its build requirements still needs it."""
    found = rewriting("numpy").runtime()
    assert found.kept == ("numpy", "torch==2.13.0")
    assert len(found.notices) == 1
    assert rewriting("numpy", "torch==2.13.0+cpu").runtime().notices == ()


def test_extra_of_the_wheel_itself_bears_its_name():
    """vllm[all] of upstream, which means other extras of itself, installs no second vllm."""
    assert rewrite("vllm[bench,audio]>=0.32").kept == ("vllm-cpu[audio,bench]",)


def test_nothing_pulls_in_the_distribution_vllm():
    """Neither a plugin nor an extra of another package installs upstream's vllm over my wheel."""
    found = rewrite("smg-grpc-servicer[vllm] >= 0.5.2", "vllm-gguf-plugin>=0.0.2", "other[fast]")
    assert found.kept == ("smg-grpc-servicer>=0.5.2", "other[fast]")
    assert found.dropped == ("vllm-gguf-plugin>=0.0.2",)
    assert [notice.partition(" ")[0] for notice in found.notices] == ["smg-grpc-servicer", "vllm-gguf-plugin"]


def test_order_is_kept_and_duplicates_go():
    """The list reads like upstream's, each requirement once."""
    assert rewrite("b", "a >= 1", "b", "a>=1", "--extra-index-url x").kept == ("b", "a>=1")


def test_line_that_is_no_requirement_is_an_error():
    """A line that cannot be read is named."""
    with pytest.raises(PatchError, match=r"'== 3 nonsense'"):
        rewrite("== 3 nonsense")


def test_optional_dependencies_are_read_from_setup(tmp_path):
    """Extras such as vllm[audio] are those of setup.py."""
    assert optional_dependencies(tree(write(tmp_path))) == {"audio": ["av", "torch==2.13.0+cpu"], "video": []}


@pytest.mark.parametrize("value", ["EXTRAS", '{"audio": [NAME]}', '{"audio": [1]}', "{}, **MORE"])
def test_optional_dependencies_that_are_no_literal_are_an_error(tmp_path, value):
    """Computed extras are not guessed at; the message names setup.py."""
    source = tree(write(tmp_path))
    keyword = "extras_require" if value != "{}, **MORE" else "others"
    (tmp_path / "setup.py").write_text(f"setup({keyword}={value})\n")
    with pytest.raises(PatchError, match=r"setup\.py"):
        optional_dependencies(source)
