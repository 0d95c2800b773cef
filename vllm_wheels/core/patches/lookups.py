"""Renames vLLM's lookups of its own distribution, as ``importlib.metadata.version("vllm")``, to the wheel's name.

Lookups are found in the syntax tree by what they call, under whatever alias the file imports it; only the string
literal is replaced, so the file keeps its formatting. Lookups whose name is computed are answered at run time
(``own_distribution``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from packaging.specifiers import SpecifierSet

from vllm_wheels.core.formats.python_calls import calls, span
from vllm_wheels.core.patches.guard_files import OWN_DISTRIBUTION
from vllm_wheels.core.patches.package_init import put_first
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree

UPSTREAM_NAME = "vllm"
MODULES = ("importlib.metadata", "importlib_metadata")
QUESTIONS = (
    *("version", "metadata", "distribution", "distributions", "requires", "files"),
    *("Distribution.from_name", "Distribution.discover"),
)
LOOKUPS = frozenset(f"{module}.{question}" for module in MODULES for question in QUESTIONS)
VERSIONS = frozenset(f"{module}.version" for module in MODULES)
UNANSWERED = frozenset(f"pkg_resources.{question}" for question in ("get_distribution", "require", "get_provider"))
"""They read the installed distributions by themselves, so that nothing can answer in their place."""

MUST_HAVE = {
    "vllm/platforms/__init__.py": SpecifierSet(">=0.8.5"),
    "vllm/entrypoints/cli/main.py": SpecifierSet(">=0.9.2"),
}
"""Files in which a lookup is known to be, by release: not finding one there means that the patch misses something."""

SIGNS = (*MODULES, "from importlib import", "pkg_resources")
"""Without one of these a file asks for no distribution."""

TEMPLATE = "own_distribution.py"
NAME = 'NAME = ""\n'


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """A call that asks for a distribution.

    Attributes:
        asks: full name of the function.
        literal: name that it asks for; None where that is computed.
    """

    asks: str
    line: int
    literal: ast.Constant | None

    @property
    def of_upstream(self) -> bool:
        """Whether it asks for the distribution ``vllm`` by a literal."""
        return self.literal is not None and self.literal.value == UPSTREAM_NAME


def apply(tree: Tree, wanted: Wanted) -> None:
    """Renames the distribution in every lookup below ``vllm/``, and adds what answers those that compute the name.

    Raises:
        PatchError: a lookup can be neither renamed nor answered, or none is where one is known to be.
    """
    for path in tree.code_with(*SIGNS):
        found = list(lookups(tree.module(path)))
        for lookup in found:
            if lookup.asks in UNANSWERED and (lookup.literal is None or lookup.of_upstream):
                raise tree.misfit(path, why=f"line {lookup.line} asks {lookup.asks}, in whose place nobody can answer")
        if any(lookup.of_upstream for lookup in found):
            tree.write(path, _renamed(tree.text(path), found, wanted.distribution))
    for path, releases in MUST_HAVE.items():
        if releases.contains(tree.release, prereleases=True) and path not in tree.changed:
            raise tree.missing(path, f'importlib.metadata.version("{UPSTREAM_NAME}")')
    source = files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    tree.write(OWN_DISTRIBUTION, source.replace(NAME, f'NAME = "{wanted.distribution}"\n'))
    put_first(tree, "from . import _own_distribution  # isort:skip\n")


def lookups(module: ast.Module) -> Iterator[Lookup]:
    """All calls of a module that ask for a distribution by its name."""
    for name, call in calls(module):
        if name in LOOKUPS | UNANSWERED:
            asked = [*call.args[:1], *(keyword.value for keyword in call.keywords)]
            literals = [node for node in asked if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            if asked:
                yield Lookup(asks=name, line=call.lineno, literal=literals[0] if literals else None)


def _renamed(text: str, found: list[Lookup], distribution: str) -> str:
    literals = [lookup.literal for lookup in found if lookup.literal and lookup.of_upstream]
    for start, end in sorted((span(text, node) for node in literals), reverse=True):
        text = text[:start] + text[start:end].replace(UPSTREAM_NAME, distribution) + text[end:]
    return text


PATCH = Patch(name="lookups", apply=apply)
