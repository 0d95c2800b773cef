"""Whether code of a package can be reached on a host, by the places from which it is used, up to a module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from vllm_wheels.core.verify.reading.conditions import Conditions
from vllm_wheels.core.verify.reading.sources import Function, Package, Source
from vllm_wheels.core.verify.reading.values import Host, Place, Value, dotted

GATES = ("is_supported", "can_implement", "is_available", "_supports_current_device")
"""Class methods by which vLLM asks a class whether it can be used, before it makes an object of it."""

TRANSPARENT = re.compile(
    r"(functools\.)?(cache|lru_cache|wraps|cached_property)|staticmethod|classmethod|property|\w+\.setter"
    r"|(abc\.)?abstractmethod|(typing\.)?(override|final|overload)|(contextlib\.)?contextmanager|torch\.\w+"
)
"""Decorators that call nothing by themselves; any other may register what it decorates."""

NO_USE = re.compile(r"^(isinstance|issubclass|hasattr|cast|typing\.cast)$|(^|\.)_cpu_guard\.\w+$")
"""Functions that are told a name without using what it names."""

WIDESPREAD = 60
"""A name that stands in more files is taken for used: nothing so common, such as ModelConfig, depends on the CPU."""

COMMON = 4
"""A method that as many classes define is called through an interface: it runs wherever its class is used."""


@dataclass(frozen=True)
class Reach:
    """Finds out what can be reached."""

    package: Package
    host: Host
    _refused: dict[int, Value | None] = field(default_factory=dict, repr=False)
    _importable: dict[str, bool] = field(default_factory=dict, repr=False)

    @cached_property
    def conditions(self) -> Conditions:
        """What conditions come to on the host."""
        return Conditions(
            self.package, self.host, self.refused, lambda source, node: self.chain(source, node) is not None
        )

    def chain(self, source: Source, node: ast.AST) -> tuple[str, ...] | None:
        """The places that lead to a node, from its own to a module's; None where nothing does."""
        return self._upward(source, node, set())

    def _upward(self, source: Source, node: ast.AST, seen: set[int]) -> tuple[str, ...] | None:
        if not self._imported(source) or self.conditions.barred(node, Place(source)) is not None:
            return None
        name = self._constant(source, node)
        if name is not None:
            return self._used_from(source, node, name, seen)
        around = source.scope(node)
        if isinstance(around, ast.Module):
            return (source.place(node),)
        found = self._definition(source, around, seen)
        return (source.place(node), *found) if found is not None else None

    def _constant(self, source: Source, node: ast.AST) -> str | None:
        """The name that a class gives to what holds the node, such as a member of an enumeration."""
        around: ast.AST = node
        while isinstance(around, ast.expr):
            around = source.parents[around]
        if isinstance(around, ast.Assign) and isinstance(source.parents[around], ast.ClassDef):
            target = around.targets[0]
            return target.id if isinstance(target, ast.Name) and target.id.isupper() else None
        return None

    def _definition(self, source: Source, scope: Function | ast.ClassDef, seen: set[int]) -> tuple[str, ...] | None:
        if id(scope) in seen:
            return None
        seen.add(id(scope))
        if isinstance(scope, ast.ClassDef):
            return self._class(source, scope, seen)
        if any(not TRANSPARENT.fullmatch(_decorator(each)) for each in scope.decorator_list):
            return self._upward(source, scope, seen)
        around = source.scope(scope)
        if isinstance(around, ast.ClassDef):
            used = self._method_used(source, around, scope, seen)
            if used is None or not self._called_by_name(scope):
                return used
        return self._used_from(source, scope, scope.name, seen)

    def _called_by_name(self, method: Function) -> bool:
        """Whether the places that name a method are all that call it; others are called through an interface."""
        name = method.name
        if name.startswith("__") or len(self.package.defining.get(name, ())) >= COMMON:
            return False
        named = any(_counts(user, node) and not _inside(user, node, method) for user, node in self.package.uses(name))
        return named or name.startswith("_")

    def _class(self, source: Source, scope: ast.ClassDef, seen: set[int]) -> tuple[str, ...] | None:
        only_bases = self.refused(source, scope) is not None
        return self._used_from(source, scope, scope.name, seen, only_bases=only_bases)

    def _method_used(
        self, source: Source, scope: ast.ClassDef, method: Function, seen: set[int]
    ) -> tuple[str, ...] | None:
        """What leads to an object of the class, or of one that inherits the method."""
        if self.refused(source, scope) is None:
            if id(scope) in seen:
                return None
            if (found := self._used_from(source, scope, scope.name, seen | {id(scope)})) is not None:
                return found
        for user, node in self.package.uses(scope.name):
            around = user.parents.get(node)
            if not isinstance(around, ast.ClassDef) or node not in around.bases or _overrides(around, method.name):
                continue
            if (found := self._method_used(user, around, method, seen)) is not None:
                return found
        return None

    def _used_from(
        self, source: Source, defined: ast.AST, name: str, seen: set[int], *, only_bases: bool = False
    ) -> tuple[str, ...] | None:
        files = len(self.package.holding(name))
        if files > WIDESPREAD and not only_bases:
            return (f"{name}, which stands in {files} files",)
        for user, node in self.package.uses(name):
            if not _counts(user, node) or (user is source and _inside(user, node, defined)):
                continue
            if self._another(user, node, name, source):
                continue
            if only_bases and not _is_base(user, node):
                continue
            if (found := self._upward(user, node, seen)) is not None:
                return found
        return None

    def _another(self, user: Source, node: ast.AST, name: str, source: Source) -> bool:
        """Whether a use means something else of the same name, as far as imports tell."""
        origin = dotted(node, user)
        module = self.package.module(origin.rpartition(".")[0]) if "." in origin else None
        owner = user if origin == name and name in user.defined else module
        return owner is not None and owner is not source and name in owner.defined

    def _imported(self, source: Source) -> bool:
        """Whether no package above a module refuses to be imported."""
        if source.path not in self._importable:
            self._importable[source.path] = self._can_be_imported(source.path)
        return self._importable[source.path]

    def _can_be_imported(self, folder: str) -> bool:
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            package = self.package.module(folder.replace("/", "."))
            if package is not None and self.conditions.ends(package.module.body, Place(package)):
                return False
        return True

    def refused(self, source: Source, scope: ast.ClassDef) -> Value | None:
        """Why vLLM never makes an object of a class, by what the class answers; None where it may."""
        if id(scope) not in self._refused:
            self._refused[id(scope)] = None  # for a class that derives from itself by name
            self._refused[id(scope)] = self._refusal(source, scope)
        return self._refused[id(scope)]

    def _refusal(self, source: Source, scope: ast.ClassDef) -> Value | None:
        for gate in GATES:
            for owner, method in self._methods(source, scope, gate):
                found = self.conditions.returned(owner, method, Place(owner))
                if found.known is False and found.because:
                    return found
                break
        return None

    def _methods(
        self, source: Source, scope: ast.ClassDef, name: str, depth: int = 0
    ) -> Iterator[tuple[Source, Function]]:
        """Definitions of a method in a class and those it derives from, nearest first."""
        for each in scope.body:
            if isinstance(each, Function) and each.name == name:
                yield source, each
        for base in scope.bases if depth < COMMON else ():
            if found := self.conditions.named_class(dotted(base, source), source):
                yield from self._methods(*found, name, depth + 1)


def _decorator(node: ast.expr) -> str:
    return dotted(node.func if isinstance(node, ast.Call) else node)


def _inside(source: Source, node: ast.AST, outer: ast.AST) -> bool:
    around: ast.AST | None = node
    while around is not None:
        if around is outer:
            return True
        around = source.parents.get(around)
    return False


def _overrides(scope: ast.ClassDef, name: str) -> bool:
    """Whether a class defines a method anew, and not by calling the one that it inherits."""
    own = [each for each in scope.body if isinstance(each, Function) and each.name == name]
    return bool(own) and f"super().{name}(" not in ast.unparse(own[0])


def _is_base(source: Source, node: ast.AST) -> bool:
    around = source.parents.get(node)
    return isinstance(around, ast.ClassDef) and node in around.bases


def _counts(source: Source, node: ast.AST) -> bool:  # noqa: PLR0911 - one for each kind of place
    """Whether a place uses the name: it is no comparison, no type, and no list of what a module exports."""
    inner, around = node, source.parents.get(node)
    while isinstance(around, ast.expr | ast.arg | ast.keyword | ast.Assign | ast.AnnAssign | ast.FunctionDef):
        match around:
            case ast.Compare():
                return False
            case ast.Call(func=func) if inner is not func and NO_USE.search(dotted(func)):
                return False
            case ast.Call() if inner is not around.func and not isinstance(inner, ast.Tuple | ast.List):
                return True
            case ast.arg():
                return False
            case ast.AnnAssign(annotation=kind) | ast.FunctionDef(returns=kind) if inner is kind:
                return False
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                return False
            case ast.FunctionDef() | ast.Assign() | ast.AnnAssign():
                return True
            case ast.Call() | ast.Lambda():
                return True
            case _:
                pass
        inner, around = around, source.parents.get(around)
    return True
