"""What vLLM preloads into its workers: Intel's OpenMP library, and the tcmalloc of the wheel."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from vllm_wheels.core.errors import PatchError
from vllm_wheels.core.patches import preloads
from vllm_wheels.core.patches.patch import Wanted
from vllm_wheels.core.patches.preloads import CPU, preloads_tcmalloc
from vllm_wheels_tests.core.patch_tree import tree, upstream, wanted, write

LOGIC = """\
import logging
import os

logger = logging.getLogger("vllm")


class CpuPlatform:
    @classmethod
    def check_and_update_config(cls):
        ld_preload_str = os.getenv("LD_PRELOAD", "")
        if not ("libgomp" in ld_preload_str or "libiomp" in ld_preload_str):
            pytorch_libgomp_so_candidates = ["/torch/libgomp.so.1"]
            if pytorch_libgomp_so_candidates:
                os.environ["LD_PRELOAD"] = ld_preload_str + pytorch_libgomp_so_candidates[0]
"""
REQUIRED = ("torch==2.13.0+cpu", 'intel-openmp==2024.2.1; platform_machine == "x86_64"')


@pytest.fixture
def source(tmp_path):
    """A release that preloads PyTorch's libgomp."""
    write(tmp_path / "source")
    (tmp_path / "source" / CPU).write_text(LOGIC)
    return tree(tmp_path / "source")


def demanding(*requirements: str) -> Wanted:
    """What the patches are to make of a release with these requirements."""
    return replace(wanted(), upstream=upstream(runtime_requirements=requirements))


def preloaded(source, monkeypatch, files: list[SimpleNamespace], before: str = "") -> str:
    """LD_PRELOAD once the patched vLLM has looked at its configuration."""
    preloads.apply(source, demanding(*REQUIRED))
    names: dict = {}
    exec(source.text(CPU), names)  # noqa: S102 - what the module does is what is tested
    monkeypatch.setenv("LD_PRELOAD", before)
    monkeypatch.setattr("importlib.metadata.files", lambda _: files)
    names["CpuPlatform"].check_and_update_config()
    return names["os"].environ["LD_PRELOAD"]


def installed(*paths: str) -> list[SimpleNamespace]:
    """Files of the installed distribution, as importlib.metadata gives them."""
    return [SimpleNamespace(locate=lambda path=path: Path(path)) for path in paths]


def test_intels_library_is_preloaded_in_place_of_pytorchs(source, monkeypatch):
    """The library that the wheel requires is used without anybody setting a variable."""
    files = installed("/env/lib/libiomp5_db.so", "/env/lib/libiomp5.so")
    assert preloaded(source, monkeypatch, files) == "/env/lib/libiomp5.so"


def test_library_that_the_user_names_is_left_alone(source, monkeypatch):
    """Who wants PyTorch's library names it in LD_PRELOAD."""
    files = installed("/env/lib/libiomp5.so")
    assert preloaded(source, monkeypatch, files, before="/my/libgomp.so.1") == "/my/libgomp.so.1"


def test_missing_library_is_warned_of(source, monkeypatch, caplog):
    """Without intel-openmp vLLM runs with PyTorch's library, and says so."""
    with caplog.at_level(logging.WARNING):
        assert preloaded(source, monkeypatch, []) == "/torch/libgomp.so.1"
    assert "intel-openmp, which this package requires, is not installed" in caplog.text


def test_release_that_does_not_require_it_is_left_as_it_is(source):
    """Where upstream requires no Intel library, there is none to preload."""
    preloads.apply(source, demanding("torch==2.13.0+cpu"))
    assert source.changed == {}


def test_choice_that_was_rewritten_is_an_error(source):
    """I am told where upstream chooses in another way."""
    source.write(CPU, LOGIC.replace("if pytorch_libgomp_so_candidates:", "if candidates:"))
    with pytest.raises(PatchError, match=r"platforms/cpu\.py"):
        preloads.apply(source, demanding(*REQUIRED))


def test_release_without_code_for_tcmalloc_is_told_from_one_with_it(source):
    """A wheel gets an allocator only where vLLM would use it."""
    assert not preloads_tcmalloc(source.root)
    (source.root / CPU).write_text(LOGIC.replace("libiomp", "libtcmalloc"))
    assert preloads_tcmalloc(source.root)
