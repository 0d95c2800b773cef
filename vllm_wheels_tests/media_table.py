"""Derives from the sources which models need torchvision or torchaudio, and writes the tables of the page about it.

    python -m vllm_wheels_tests.media_table docs/torchvision-torchaudio.md

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
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.version import Version

from vllm_wheels.core.formats.wheelfile import unpack_wheel
from vllm_wheels.core.host.archives import unpack
from vllm_wheels.core.index.published import fetch, files_of
from vllm_wheels.core.index.releases import find
from vllm_wheels.core.settings import Settings, load
from vllm_wheels_tests.patch_table import archive, cache_folder

SIDECARS = ("torchvision", "torchaudio")
REGISTRY = Path("vllm/model_executor/models/registry.py")
MODELS = "vllm.model_executor.models"
PROCESSORS = "vllm.transformers_utils.processors"
FOLLOWED = (MODELS, PROCESSORS, "vllm.models")
"""Packages of vLLM whose imports are followed: models and processors. What all models share is told in the text."""

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
FALLBACK = "image_processing_pil_"
USES = {"image_processing_": "images", "video_processing_": "videos", "feature_extraction_": "audio"}
BASES = {"TorchvisionBackend": "torchvision", "BaseVideoProcessor": "torchvision"}
"""Base classes of transformers that only work with the package (``@requires`` in its own source)."""

TRANSFORMERS = "transformers.models"
PUBLIC = re.compile(r"^__all__ = \[(.*?)\]", re.DOTALL | re.MULTILINE)


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


class _Imports(ast.NodeVisitor):
    """Collects what is imported when a module is loaded; functions are not entered, nor what only type checkers see."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.found: list[Import] = []
        self._survived = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Not entered."""

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment] # noqa: N815

    def visit_If(self, node: ast.If) -> None:
        """A condition other than TYPE_CHECKING asks whether something is installed."""
        if not ast.unparse(node.test).endswith("TYPE_CHECKING"):
            self._survive(node.body)
        for each in node.orelse:
            self.visit(each)

    def visit_Try(self, node: ast.Try) -> None:
        """What is tried may be missing."""
        self._survive([*node.body, *node.handlers, *node.orelse, *node.finalbody])

    def visit_Import(self, node: ast.Import) -> None:
        """``import a.b``."""
        self.found += [Import(alias.name, (), self._survived > 0) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """``from a import b``, also relative."""
        parents = self.package.split(".")[: len(self.package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*parents, *([node.module] if node.module else [])])
        self.found.append(Import(module, tuple(alias.name for alias in node.names), self._survived > 0))

    def _survive(self, nodes: Iterable[ast.AST]) -> None:
        self._survived += 1
        for each in nodes:
            self.visit(each)
        self._survived -= 1


@dataclass(frozen=True)
class Sources:
    """The two source trees: folders that hold the packages ``vllm`` and ``transformers``."""

    vllm: Path
    transformers: Path

    def path(self, module: str) -> Path | None:
        """The file of a module; None for a module of another package."""
        top = module.partition(".")[0]
        if top not in {"vllm", "transformers"}:
            return None
        base = (self.vllm if top == "vllm" else self.transformers).joinpath(*module.split("."))
        return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)

    def shown(self, path: Path) -> str:
        """A file as the page names it."""
        for root in (self.vllm, self.transformers):
            if path.is_relative_to(root):
                return path.relative_to(root).as_posix()
        return path.name


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), str(path))


@cache
def imports(path: Path, module: str) -> tuple[Import, ...]:
    """The imports that loading the file carries out."""
    visitor = _Imports(module if path.name == "__init__.py" else module.rpartition(".")[0])
    visitor.visit(parsed(path))
    return tuple(visitor.found)


@dataclass(frozen=True)
class Model:
    """An architecture of the registry: its name, the module that holds it, and whether it is listed as multimodal."""

    name: str
    module: str
    multimodal: bool


def registered(sources: Sources) -> list[Model]:
    """All architectures of the registry, once each."""
    found: dict[str, Model] = {}
    for node in parsed(sources.vllm / REGISTRY).body:
        table = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""
        if table.endswith("_MODELS") and isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, (module, _) in _entries(node.value):
                path = module if module.startswith("vllm.") else f"{MODELS}.{module}"
                found[name] = Model(name, path, table == "_MULTIMODAL_MODELS")
    return list(found.values())


def _entries(table: ast.Dict) -> Iterator[tuple[str, tuple[str, str]]]:
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple):
            yield str(key.value), ast.literal_eval(value)


@cache
def defined(sources: Sources) -> dict[str, str]:
    """The module of transformers that defines a public name, from the ``__all__`` of its model files."""
    found: dict[str, str] = {}
    for path in sorted((sources.transformers / "transformers/models").glob("*/*.py")):
        listed = PUBLIC.search(path.read_text("utf-8"))
        names = re.findall(r"\w+", listed[1]) if listed else []
        found |= dict.fromkeys(names, f"transformers.models.{path.parent.name}.{path.stem}")
    return found


@cache
def lazy(sources: Sources) -> dict[str, str]:
    """Processors of vLLM by class name, which their package imports only when they are asked for."""
    path = sources.path(PROCESSORS)
    found: dict[str, str] = {}
    for node in parsed(path).body if path else []:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            found |= ast.literal_eval(node.value)
    return found


def loads(sources: Sources, module: str, followed: tuple[str, ...]) -> Iterator[tuple[Path, Import]]:
    """Each import that is carried out when a module is loaded, there and in those that it imports of ``followed``."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = sources.path(name)
        if name in seen or path is None:
            continue
        seen.add(name)
        for each in imports(path, name):
            yield path, each
            waiting += [other for other in _targets(sources, each) if other.startswith(followed)]


def _targets(sources: Sources, each: Import) -> list[str]:
    if each.module == PROCESSORS:
        return [lazy(sources).get(name, f"{PROCESSORS}.{name}") for name in each.names]
    return [each.module, *(f"{each.module}.{name}" for name in each.names)]


@cache
def on_import(sources: Sources, module: str) -> frozenset[Need]:
    """Files that import a companion while the module is loaded.

    A file of transformers that is imported by its own path is loaded at once; what is imported from a package of
    transformers is looked up only when it is used, so that nothing is missing before.
    """
    found: set[Need] = set()
    for path, each in loads(sources, module, FOLLOWED):
        found |= _own(sources, path, each)
        other = sources.path(each.module) if each.module.startswith(f"{TRANSFORMERS}.") else None
        if other and other.name != "__init__.py":
            inside = {need for one in imports(other, each.module) for need in _own(sources, other, one)}
            found |= {need for need in inside if need.how == "always"}
    return frozenset(found)


def _own(sources: Sources, path: Path, each: Import) -> set[Need]:
    top = each.module.partition(".")[0]
    if top not in SIDECARS:
        return set()
    return {Need(top, sources.shown(path), "if it is there" if each.optional else "always")}


def on_use(sources: Sources, model: Model) -> set[Need]:
    """What the processors of transformers ask for that are taken for a model.

    They are those that the model and its processor in vLLM import by name, and those of the package of transformers
    that has a class of a multimodal architecture's name.
    """
    names = defined(sources)
    wanted = {
        names.get(name, each.module)
        for _, each in loads(sources, model.module, (PROCESSORS,))
        if each.module.startswith("transformers")
        for name in each.names
    }
    folders = {name.rpartition(".")[0] for name in wanted if name.rpartition(".")[2].startswith(("processing_", *USES))}
    if model.multimodal and model.name in names:
        folders.add(names[model.name].rpartition(".")[0])
    return {need for folder in folders if folder.startswith(TRANSFORMERS) for need in _processors(sources, folder)}


@cache
def _processors(sources: Sources, folder: str) -> frozenset[Need]:
    found = set()
    shown = folder.replace(".", "/")
    for path in sorted((sources.transformers / shown).glob("*.py")):
        use = next((use for start, use in USES.items() if path.stem.startswith(start)), None)
        if use is None or path.stem.startswith(FALLBACK):
            continue
        if use == "images" and path.with_name(f"{FALLBACK}{path.stem.removeprefix('image_processing_')}.py").is_file():
            use = "images, else with PIL"
        found |= {Need(name, shown, use) for name in _companions(path, f"{folder}.{path.stem}")}
    return frozenset(found)


def _companions(path: Path, module: str) -> set[str]:
    bases = {ast.unparse(base) for node in parsed(path).body if isinstance(node, ast.ClassDef) for base in node.bases}
    named = {each.module.partition(".")[0] for each in imports(path, module)}
    return {*named.intersection(SIDECARS), *(BASES[base] for base in bases if base in BASES)}


def by_name(sources: Sources) -> dict[Need, set[str]]:
    """Processors of vLLM that import a companion, which a checkpoint asks for by their name."""
    found: dict[Need, set[str]] = defaultdict(set)
    for processor, module in lazy(sources).items():
        for need in on_import(sources, module):
            found[need].add(processor)
    return found


def tables(sources: Sources, versions: str) -> str:
    """The two tables of the page, as Markdown."""
    first: dict[Need, set[str]] = defaultdict(set)
    second: dict[Need, set[str]] = defaultdict(set)
    for model in registered(sources):
        for need in on_import(sources, model.module):
            first[need].add(model.name)
        for need in on_use(sources, model):
            second[need].add(model.name)
    named = by_name(sources)
    for need in named:
        first[need].update(())
    return "\n".join([f"From {versions}.", "", *_first(first, named), "", *_second(second, first)])


def _first(first: Mapping[Need, set[str]], named: Mapping[Need, set[str]]) -> Iterator[str]:
    total = {name for need, names in first.items() if need.how == "always" for name in names}
    yield f"{len(total)} models of the registry cannot be imported without one of the two:\n"
    yield "| imports | in the file | | models that load it |"
    yield "|---|---|---|---|"
    for need, names in sorted(first.items(), key=lambda each: (each[0].companion == "torchaudio", each[0])):
        models = _models(names) or f"checkpoints that name {_models(named[need])}"
        yield f"| {need.companion} | `{need.file}` | {need.how} | {models} |"


def _second(second: Mapping[Need, set[str]], first: Mapping[Need, set[str]]) -> Iterator[str]:
    known = {name for need, names in first.items() if need.how == "always" for name in names}
    left = {need: names - known for need, names in second.items() if names - known}
    total = len(set().union(*left.values()))
    yield f"{total} further models have a processor of transformers that asks for one of the two:\n"
    yield "| asks for | processors of | for | models |"
    yield "|---|---|---|---|"
    for need, names in sorted(left.items(), key=lambda each: (each[0].companion == "torchaudio", each[0])):
        yield f"| {need.companion} | `{need.file}` | {need.how} | {_models(names)} |"


def _models(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def fetched(settings: Settings, folder: Path) -> tuple[Sources, str]:
    """Downloads and unpacks both sources below the folder; gives them with the sentence that names their versions."""
    release = settings.default_release
    unpack(archive(settings, find(settings, release)), folder / "vllm")
    version = transformers_version(settings, folder / "vllm/requirements/common.txt")
    wheel = next(cache_folder().glob(f"transformers-{version}-*.whl"), None)
    unpack_wheel(wheel or fetch("transformers", version, cache_folder(), settings), folder / "transformers")
    return Sources(folder / "vllm", folder / "transformers"), f"vLLM {release}, transformers {version}"


def transformers_version(settings: Settings, requirements: Path) -> str:
    """The newest transformers that a release's requirements allow."""
    lines = (line.partition("#")[0].strip() for line in requirements.read_text("utf-8").splitlines())
    wanted = next(Requirement(line) for line in lines if line.startswith("transformers "))
    versions = {Version(str(each.version)) for each in files_of(settings, "transformers") if each.version}
    return str(max(wanted.specifier.filter(versions)))


def updated(page: str, fresh: str) -> str:
    """The page with the tables between its two marks replaced."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{fresh}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Writes the tables into the page that the command line names."""
    page = Path(sys.argv[1])
    with TemporaryDirectory(prefix="vllm-wheels-media-") as temporary:
        fresh = tables(*fetched(load(), Path(temporary)))
    page.write_text(updated(page.read_text("utf-8"), fresh), "utf-8")


if __name__ == "__main__":
    main()
