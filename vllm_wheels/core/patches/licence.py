"""Refuses a release whose licence is not the one that is known, until a person names it in the settings.

What counts is what the tree says: the licence of pyproject.toml (an SPDX expression by PEP 639; up to 0.8.5 a table
that names a file or quotes a name), the licence classifiers, and the text of LICENSE.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.errors import PatchError
from vllm_wheels.core.patches.known import known
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import PYPROJECT

LICENSE = "Apache-2.0"
LICENSE_FILE = "LICENSE"
OLD_NAMES = re.compile(r"Apache([- ](Software )?License)?,?[- ](Version )?2\.0", re.IGNORECASE)
"""How a table of the old form may call it."""

CLASSIFIER = "License ::"
OLD_CLASSIFIERS = frozenset({"License :: OSI Approved", "License :: OSI Approved :: Apache Software License"})


def apply(tree: Tree, wanted: Wanted) -> None:
    """Compares what the tree says of its licence with what is known, or with what a person named."""
    project = _project(tree)
    named, said = wanted.licence, stated(project)
    if named:
        if said not in (named, ""):
            raise _refused(tree, PYPROJECT, f"it says {said!r}, and wheel.licence names {named!r}")
        return
    if said not in (LICENSE, ""):
        raise _refused(tree, PYPROJECT, f"it says {said!r} (looked for 'license = \"{LICENSE}\"')")
    files = project.get("license-files", [LICENSE_FILE])
    others = [line for line in files if line != LICENSE_FILE]
    if others:
        raise _refused(tree, PYPROJECT, f"its license-files name {', '.join(map(str, others))} beside {LICENSE_FILE}")
    if text_of(tree) not in known().licences[LICENSE]:
        raise _refused(tree, LICENSE_FILE, f"its text is not that of {LICENSE}")


def expression(wanted: Wanted) -> str:
    """What the wheel says: what a person named, or what is known."""
    return wanted.licence or LICENSE


def stated(project: Mapping[str, Any]) -> str:
    """The licence by a ``[project]`` table: an expression, another text, or nothing where LICENSE alone says it."""
    licence = project.get("license", "")
    lines = [line for line in project.get("classifiers", ()) if line.startswith(CLASSIFIER)]
    foreign = [line for line in lines if line not in OLD_CLASSIFIERS]
    if foreign:
        return "; ".join(foreign)
    if not isinstance(licence, dict):
        return str(licence)
    if licence.get("file", LICENSE_FILE) != LICENSE_FILE:
        return str(licence["file"])
    text = str(licence.get("text", ""))
    return "" if OLD_NAMES.fullmatch(text) else text


def text_of(tree: Tree) -> str:
    """SHA-256 of the text of LICENSE, with single spaces in place of all white space."""
    return hashlib.sha256(" ".join(tree.text(LICENSE_FILE).split()).encode()).hexdigest()


def _project(tree: Tree) -> Mapping[str, Any]:
    try:
        project = tomllib.loads(tree.original(PYPROJECT)).get("project")
    except tomllib.TOMLDecodeError as error:
        raise tree.misfit(PYPROJECT, why=f"it is not TOML: {error}") from error
    if not isinstance(project, dict):
        raise tree.missing(PYPROJECT, "[project]")
    return project


def _refused(tree: Tree, path: str, why: str) -> PatchError:
    remedy = 'read the licence; where you may publish under it, name it: wheel.licence = "<SPDX expression>"'
    return PatchError(f"the licence of vLLM {tree.release} is not known: {path}", why=why, remedy=remedy)


PATCH = Patch(name="licence", apply=apply)
