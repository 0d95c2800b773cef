"""Makes vLLM preload Intel's OpenMP library, which it requires, where upstream takes PyTorch's libgomp.

Upstream sets ``LD_PRELOAD`` for its worker processes (``vllm/platforms/cpu.py``): from 0.11.1 on an OpenMP library, so
that threads can be bound to cores, and from 0.20 on tcmalloc. Its documentation asks users to preload libiomp5, whose
barriers cost less. A library that the user names in ``LD_PRELOAD`` is left alone, as upstream does.
"""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Edit, Tree

CPU = "vllm/platforms/cpu.py"
LIBGOMP, TCMALLOC = "libgomp", "libtcmalloc"
OPENMP = "intel-openmp"

CHOICE = "            if pytorch_libgomp_so_candidates:\n"
INTEL_FIRST = f"""\
            # vllm-wheels: Intel's first, which the wheel requires.
            pytorch_libgomp_so_candidates = (
                _intel_openmp() or pytorch_libgomp_so_candidates
            )
{CHOICE}"""
FINDING = '''


def _intel_openmp() -> list[str]:
    """Path of Intel's OpenMP library, which this wheel requires."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        found = [path.locate().resolve() for path in files("intel-openmp") or ()]
    except PackageNotFoundError:
        found = []
    libraries = [str(path) for path in found if path.name == "libiomp5.so"]
    if not libraries:
        logger.warning(
            "intel-openmp, which this package requires, is not installed: "
            "PyTorch's libgomp takes its place, which can be slower."
        )
    return libraries
'''


def apply(tree: Tree, wanted: Wanted) -> None:
    """Puts Intel's library before PyTorch's, in releases that preload one and require Intel's."""
    if not chooses_openmp(tree, wanted):
        return
    tree.replace(Edit(path=CPU, old=CHOICE, new=INTEL_FIRST))
    tree.write(CPU, tree.text(CPU).rstrip() + FINDING)


def chooses_openmp(tree: Tree, wanted: Wanted) -> bool:
    """Whether the release preloads an OpenMP library and requires Intel's."""
    required = {canonicalize_name(Requirement(line).name) for line in wanted.upstream.runtime_requirements if _is(line)}
    return OPENMP in required and preloads_openmp(tree.root)


def _is(line: str) -> bool:
    return not line.startswith("-")


def preloads_openmp(root: Path) -> bool:
    """Whether vLLM, by its source tree, preloads an OpenMP library."""
    return LIBGOMP in _text(root)


def preloads_tcmalloc(root: Path) -> bool:
    """Whether vLLM, by its source tree, preloads the tcmalloc that lies in its package."""
    return TCMALLOC in _text(root)


def _text(root: Path) -> str:
    path = root / CPU
    return path.read_text("utf-8") if path.is_file() else ""


PATCH = Patch(name="preloads", apply=apply)
