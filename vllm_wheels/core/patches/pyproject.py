"""Turns upstream's pyproject.toml, and the extras of its setup.py, into the wheel's, and generates METADATA from it."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parseaddr

import tomlkit
from pyproject_metadata import StandardMetadata
from pyproject_metadata.errors import ConfigurationError
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array, Table

from vllm_wheels.core.errors import SettingsError
from vllm_wheels.core.patches.licence import CLASSIFIER, LICENSE_FILE
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import PYPROJECT, SETUP
from vllm_wheels.core.settings import Settings

KEYWORD = "extras_require"
MADE_STATIC = frozenset({"version", "dependencies", "optional-dependencies"})


@dataclass(frozen=True, kw_only=True)
class Project:
    """The project metadata that differs from upstream's."""

    name: str
    version: str
    description: str
    dependencies: Sequence[str]
    extras: Mapping[str, Sequence[str]]
    licence: str


def edited(tree: Tree, project: Project, settings: Settings) -> str:
    """The wheel's pyproject.toml; unchanged parts keep their formatting and comments.

    Raises:
        PatchError: upstream's file is not TOML, has no project table, or lists requirements that setup.py does not.
        SettingsError: an author is not of the form ``Name <mail>``.
    """
    document = _document(tree)
    table = document["project"]
    assert isinstance(table, Table)  # noqa: S101 - _document looked
    for field in ("dependencies", "optional-dependencies"):
        if field in table:
            raise tree.misfit(PYPROJECT, why=f"it lists its {field} itself, which the patch reads elsewhere")
    table["name"] = project.name
    table["version"] = project.version
    table["description"] = project.description
    if settings.wheel.authors:
        table["authors"] = _authors(settings.wheel.authors)
    _license(table, project.licence)
    urls = table.setdefault("urls", tomlkit.table())
    for label, url in settings.wheel.urls.items():
        urls[label] = url
    table["dependencies"] = _lines(project.dependencies)
    extras = tomlkit.table()
    for name, lines in project.extras.items():
        extras[name] = _lines(lines)
    table["optional-dependencies"] = extras.add(tomlkit.nl())
    dynamic = [field for field in table.get("dynamic", ()) if field not in MADE_STATIC]
    table.pop("dynamic", None)
    if dynamic:
        table["dynamic"] = dynamic
    return tomlkit.dumps(document)


def _document(tree: Tree) -> tomlkit.TOMLDocument:
    try:
        document = tomlkit.parse(tree.original(PYPROJECT))
    except TOMLKitError as error:
        raise tree.misfit(PYPROJECT, why=f"it is not TOML: {error}") from error
    if not isinstance(document.get("project"), Table):
        raise tree.missing(PYPROJECT, "[project]")
    return document


def _lines(lines: Sequence[str]) -> Array:
    array = tomlkit.array()
    array.extend(lines)
    return array.multiline(bool(lines))


def _authors(authors: Sequence[str]) -> Array:
    people = tomlkit.array()
    for author in authors:
        name, mail = parseaddr(author)
        if not (name or mail):
            what = f"setting wheel.authors holds {author!r}, which is not an author"
            raise SettingsError(
                what, why="expected the form Name <mail>", remedy='write it like "Ada <ada@example.org>"'
            )
        # parseaddr takes a lone word for a mail address.
        person = (
            {"name": name, "email": mail}
            if name
            else {"email" if "@" in mail else "name": mail if "@" in mail else author}
        )
        people.append(person)
    return people


def _license(table: Table, licence: str) -> None:
    """Writes the licence as PEP 639 has it; up to 0.8.5 upstream names a file only."""
    table["license"] = licence
    if "license-files" not in table:
        table["license-files"] = [LICENSE_FILE]
    classifiers = table.get("classifiers", [])
    if any(line.startswith(CLASSIFIER) for line in classifiers):
        # PEP 639 refuses them beside a licence expression.
        table["classifiers"] = _lines([str(line) for line in classifiers if not line.startswith(CLASSIFIER)])


@dataclass(frozen=True, kw_only=True)
class Described:
    """The METADATA file and the facts in it.

    Attributes:
        requires_dist: its ``Requires-Dist`` lines, those of extras among them.
        license: ``expression`` and ``files``, which belong below ``licenses/`` of the dist-info folder.
    """

    text: str
    requires_dist: tuple[str, ...]
    license: Mapping[str, object]


def described(tree: Tree, pyproject: str, readme: str) -> Described:
    """METADATA of a wheel with this pyproject.toml and this long description (Markdown).

    Raises:
        PatchError: the edited pyproject.toml is not valid metadata.
    """
    data = tomlkit.parse(pyproject).unwrap()
    data["project"]["readme"] = {"text": readme, "content-type": "text/markdown"}
    try:
        metadata = StandardMetadata.from_pyproject(data, project_dir=tree.root)
        message = metadata.as_rfc822()
    except ConfigurationError as error:
        raise tree.misfit(PYPROJECT, why=f"its edited form is not valid metadata: {error}") from error
    return Described(
        text=str(message),
        requires_dist=tuple(message.get_all("Requires-Dist", [])),
        license={"expression": metadata.license, "files": [path.as_posix() for path in metadata.license_files or ()]},
    )


def optional_dependencies(tree: Tree) -> dict[str, list[str]]:
    """Requirements by extra, as upstream wrote them; PatchError where setup.py does not pass them as a literal."""
    module = tree.module(SETUP)
    found = [
        keyword.value
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup"
        for keyword in node.keywords
        if keyword.arg == KEYWORD
    ]
    if len(found) != 1:
        raise tree.missing(SETUP, f"setup(..., {KEYWORD}={{...}})", found=len(found))
    try:
        extras = ast.literal_eval(found[0])
        return {str(name): [_text(line) for line in lines] for name, lines in extras.items()}
    except (ValueError, TypeError, AttributeError) as error:
        why = f"{KEYWORD} in line {found[0].lineno} is not a literal of texts"
        raise tree.misfit(SETUP, why=why) from error


def _text(line: object) -> str:
    if not isinstance(line, str):
        raise TypeError
    return line
