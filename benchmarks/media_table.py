"""Derives from the sources which models need torchvision or torchaudio, and writes the tables of the page about it.

    python -m benchmarks.media_table docs/torchvision-torchaudio.md

The release is the settings' ``default_release``; transformers is the newest one that the release's requirements allow.
Both come from the configured package index and stay below the user's cache folder. Nothing is imported: the program
reads ``vllm/model_executor/models/registry.py`` and follows the import statements from there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.version import Version

from benchmarks.patch_table import archive, cache_folder
from vllm_wheels.core.formats.wheel_name import wheels_in
from vllm_wheels.core.formats.wheelfile import unpack_wheel
from vllm_wheels.core.host.archives import unpack
from vllm_wheels.core.index.published import fetch, files_of
from vllm_wheels.core.index.releases import find
from vllm_wheels.core.settings import Settings, load

COMPANIONS = ("torchvision", "torchaudio")
REGISTRY = "vllm.model_executor.models.registry"
MODELS = "vllm.model_executor.models"
PROCESSORS = "vllm.transformers_utils.processors"
FOLLOWED = (MODELS, PROCESSORS, "vllm.models")
"""Packages of vLLM whose imports are followed: models and processors. What all models share is told in the text."""

TRANSFORMERS = "transformers.models."
FALLBACK = "image_processing_pil_"
USES = {"image_processing_": "images", "video_processing_": "videos", "feature_extraction_": "audio"}
BASES = {"TorchvisionBackend": "torchvision", "BaseVideoProcessor": "torchvision"}
"""Base classes of transformers that only work with the package (``@requires`` in its own source)."""

PUBLIC = re.compile(r"^__all__ = \[(.*?)\]", re.DOTALL | re.MULTILINE)
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


@dataclass(frozen=True)
class Import:
    """An import statement: the module, the names taken from it, and whether a missing module is survived."""

    module: str
    names: tuple[str, ...]
    optional: bool


@dataclass(frozen=True, order=True)
class Need:
    """A file that imports a companion, and how: ``always``, ``if it is there``, or what a processor is for."""

    companion: str
    file: str
    how: str


@dataclass(frozen=True)
class Model:
    """An architecture of the registry: its name, the module that holds it, and whether it is listed as multimodal."""

    name: str
    module: str
    multimodal: bool


@dataclass(frozen=True)
class Sources:
    """The two source trees: folders that hold the packages ``vllm`` and ``transformers``."""

    vllm: Path
    transformers: Path

    def path(self, module: str) -> Path | None:
        """The file of a module; None for a module of another package."""
        base = (self.vllm if module.partition(".")[0] == "vllm" else self.transformers).joinpath(*module.split("."))
        return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)

    def body(self, module: str) -> list[ast.stmt]:
        """The statements of a module; none for a module of another package."""
        path = self.path(module)
        return ast.parse(path.read_text("utf-8"), str(path)).body if path else []

    def file(self, module: str) -> str:
        """A module's file as the page names it."""
        suffix = "/__init__.py" if (self.path(module) or Path()).name == "__init__.py" else ".py"
        return module.replace(".", "/") + suffix


@cache
def imports(sources: Sources, module: str) -> tuple[Import, ...]:
    """What a module imports while it is loaded; functions are not entered, nor what only type checkers see."""
    path = sources.path(module)
    package = module if path and path.name == "__init__.py" else module.rpartition(".")[0]
    return tuple(_imports(sources.body(module), package, optional=False))


def _imports(nodes: Iterable[ast.AST], package: str, *, optional: bool) -> Iterator[Import]:
    for node in nodes:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                pass
            case ast.If(test=test, body=body, orelse=orelse):
                if not ast.unparse(test).endswith("TYPE_CHECKING"):  # It asks whether something is installed.
                    yield from _imports(body, package, optional=True)
                yield from _imports(orelse, package, optional=optional)
            case ast.Try():
                yield from _imports(ast.iter_child_nodes(node), package, optional=True)
            case ast.Import(names=names):
                yield from (Import(alias.name, (), optional) for alias in names)
            case ast.ImportFrom(module=name, names=names, level=level):
                full = resolve_name("." * level + (name or ""), package)
                yield Import(full, tuple(alias.name for alias in names), optional)
            case _:
                yield from _imports(ast.iter_child_nodes(node), package, optional=optional)


def registered(sources: Sources) -> list[Model]:
    """All architectures of the registry, once each."""
    found: dict[str, Model] = {}
    for node in sources.body(REGISTRY):
        match node:
            case ast.Assign(targets=[ast.Name(id=table)], value=ast.Dict() as entries) if table.endswith("_MODELS"):
                for key, value in zip(entries.keys, entries.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple):
                        name, (module, _) = str(key.value), ast.literal_eval(value)
                        path = module if module.startswith("vllm.") else f"{MODELS}.{module}"
                        found[name] = Model(name, path, table == "_MULTIMODAL_MODELS")
    return list(found.values())


@cache
def defined(sources: Sources) -> dict[str, str]:
    """The module of transformers that defines a public name, from the ``__all__`` of its model files."""
    found: dict[str, str] = {}
    for path in sorted(sources.transformers.glob("transformers/models/*/*.py")):
        listed = PUBLIC.search(path.read_text("utf-8"))
        names = re.findall(r"\w+", listed[1]) if listed else []
        found |= dict.fromkeys(names, f"{TRANSFORMERS}{path.parent.name}.{path.stem}")
    return found


@cache
def lazy(sources: Sources) -> dict[str, str]:
    """Processors of vLLM by class name, which their package imports only when they are asked for."""
    tables = (node.value for node in sources.body(PROCESSORS) if isinstance(node, ast.AnnAssign))
    return {name: module for table in tables if isinstance(table, ast.Dict) for name, module in _literal(table)}


def _literal(table: ast.Dict) -> Iterable[tuple[str, str]]:
    entries: dict[str, str] = ast.literal_eval(table)
    return entries.items()


def loads(sources: Sources, module: str, followed: tuple[str, ...]) -> Iterator[tuple[str, Import]]:
    """Each import that is carried out when a module is loaded, there and in those that it imports of ``followed``."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or sources.path(name) is None:
            continue
        seen.add(name)
        for each in imports(sources, name):
            yield name, each
            inner = [f"{each.module}.{one}" for one in each.names]
            if each.module == PROCESSORS:
                waiting += [lazy(sources).get(one, full) for one, full in zip(each.names, inner, strict=True)]
            else:
                waiting += [other for other in (each.module, *inner) if other.startswith(followed)]


@cache
def on_import(sources: Sources, module: str) -> frozenset[Need]:
    """Files that import a companion while the module is loaded.

    A file of transformers that is imported by its own path is loaded at once; what is imported from a package of
    transformers is looked up only when it is used, so that nothing is missing before.
    """
    found: set[Need] = set()
    for name, each in loads(sources, module, FOLLOWED):
        found |= _own(sources, name, [each])
        if each.module.startswith(TRANSFORMERS) and not sources.file(each.module).endswith("__init__.py"):
            inside = _own(sources, each.module, imports(sources, each.module))
            found |= {need for need in inside if need.how == "always"}
    return frozenset(found)


def _own(sources: Sources, module: str, found: Iterable[Import]) -> set[Need]:
    needs = ((each.module.partition(".")[0], "if it is there" if each.optional else "always") for each in found)
    return {Need(companion, sources.file(module), how) for companion, how in needs if companion in COMPANIONS}


def on_use(sources: Sources, model: Model) -> set[Need]:
    """What the processors of transformers ask for that are taken for a model.

    They are those that the model and its processor in vLLM import by name, and those of the package of transformers
    that has a class of a multimodal architecture's name.
    """
    names = defined(sources)
    taken = (each for _, each in loads(sources, model.module, (PROCESSORS,)) if each.module.startswith("transformers"))
    wanted = {names.get(name, each.module) for each in taken for name in each.names}
    folders = {name.rpartition(".")[0] for name in wanted if name.rpartition(".")[2].startswith(("processing_", *USES))}
    if model.multimodal and model.name in names:
        folders.add(names[model.name].rpartition(".")[0])
    return {need for folder in folders if folder.startswith(TRANSFORMERS) for need in _processors(sources, folder)}


@cache
def _processors(sources: Sources, folder: str) -> frozenset[Need]:
    found = set()
    shown = folder.replace(".", "/")
    stems = {path.stem for path in (sources.transformers / shown).glob("*.py")}
    for stem in stems:
        begin = next((begin for begin in USES if stem.startswith(begin)), None)
        if begin and not stem.startswith(FALLBACK):
            without = stem.replace(begin, FALLBACK) in stems and USES[begin] == "images"
            use = "images, else with PIL" if without else USES[begin]
            found |= {Need(name, shown, use) for name in _companions(sources, f"{folder}.{stem}")}
    return frozenset(found)


def _companions(sources: Sources, module: str) -> set[str]:
    classes = (node for node in sources.body(module) if isinstance(node, ast.ClassDef))
    bases = {ast.unparse(base) for each in classes for base in each.bases}
    named = {each.module.partition(".")[0] for each in imports(sources, module)}
    return {*named.intersection(COMPANIONS), *(BASES[base] for base in bases if base in BASES)}


def tables(sources: Sources, versions: str) -> str:
    """The two tables of the page, as Markdown."""
    first: dict[Need, set[str]] = defaultdict(set)
    named: dict[Need, set[str]] = defaultdict(set)
    second: dict[Need, set[str]] = defaultdict(set)
    models = registered(sources)
    for model in models:
        for need in on_import(sources, model.module):
            first[need].add(model.name)
    for processor, module in lazy(sources).items():
        for need in on_import(sources, module):
            named[need].add(processor)
    known = {name for need, names in first.items() if need.how == "always" for name in names}
    for model in models:
        for need in on_use(sources, model) if model.name not in known else ():
            second[need].add(model.name)
    by_name = {need: f"checkpoints that name {_listed(named[need])}" for need in named}
    further = len(set().union(*second.values()))
    lines = [
        f"From {versions}.",
        f"\n{len(known)} models of the registry cannot be imported without one of the two:",
        "\n| imports | in the file | | models that load it |",
        *_rows(by_name | {need: _listed(names) for need, names in first.items()}),
        f"\n{further} further models have a processor of transformers that asks for one of the two:",
        "\n| asks for | processors of | for | models |",
        *_rows({need: _listed(names) for need, names in second.items()}),
    ]
    return "\n".join(lines)


def _rows(cells: Mapping[Need, str]) -> Iterator[str]:
    yield "|---|---|---|---|"
    for need, cell in sorted(cells.items(), key=lambda each: (each[0].companion == "torchaudio", each[0])):
        yield f"| {need.companion} | `{need.file}` | {need.how} | {cell} |"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def fetched(settings: Settings, folder: Path) -> tuple[Sources, str]:
    """Downloads and unpacks both sources below the folder; gives them with the sentence that names their versions."""
    release = settings.default_release
    unpack(archive(settings, find(settings, release)), folder / "vllm")
    lines = (folder / "vllm/requirements/common.txt").read_text("utf-8").splitlines()
    wanted = next(Requirement(line.partition("#")[0]) for line in lines if line.startswith("transformers "))
    versions = {Version(str(each.version)) for each in files_of(settings, "transformers") if each.version}
    version = str(max(wanted.specifier.filter(versions)))
    wheels = wheels_in(cache_folder(), f"transformers-{version}-")
    unpack_wheel(wheels[0] if wheels else fetch("transformers", version, cache_folder(), settings), folder / "t")
    return Sources(folder / "vllm", folder / "t"), f"vLLM {release}, transformers {version}"


def updated(page: str, fresh: str) -> str:
    """The page with the tables between its two marks replaced."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{fresh}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    with TemporaryDirectory(prefix="vllm-wheels-media-") as temporary:
        page.write_text(updated(page.read_text("utf-8"), tables(*fetched(load(), Path(temporary)))), "utf-8")
