"""Evaluates setup.py statically, by its syntax tree, to find the extensions of a CPU build on x86-64."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

KNOWN: Mapping[str, object] = {
    "VLLM_TARGET_DEVICE": "cpu",
    "envs.VLLM_TARGET_DEVICE": "cpu",
    "platform.machine()": "x86_64",
    "sys.platform": "linux",
}
"""What is certain of an x86-64 CPU build, by the text with which setup.py asks for it."""

COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


class _Unknown:
    """The value of an expression that cannot be evaluated statically."""


UNKNOWN = _Unknown()


class UndecidedExtensionError(ValueError):
    """An extension depends on a condition that cannot be evaluated statically; the message is that condition."""


def extensions(text: str, *, python: str) -> tuple[str, ...]:
    """Names of the extensions, without the package ``vllm``, in order; without optional ones, which may fail to build.

    Raises:
        SyntaxError: the text is not Python.
        UndecidedExtensionError: the extensions cannot be told statically.
    """
    module = ast.parse(text)
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    version = tuple(int(part) for part in python.split("."))
    known = {**KNOWN, "sys.version_info": (*version, 0), "sys.version_info[:2]": version}
    reading = _Reading(functions=functions, known=known)
    reading.walk(module.body)
    return tuple(dict.fromkeys(reading.names))


@dataclass
class _Reading:
    functions: Mapping[str, ast.FunctionDef]
    known: Mapping[str, object]
    names: list[str] = field(default_factory=list)
    calling: tuple[str, ...] = ()

    def walk(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.If(test=test, body=body, orelse=orelse):
                    self._branch(test, body, orelse)
                case ast.Assign(targets=[ast.Name(id="ext_modules")], value=value):
                    self.names = list(_constructed(value))
                case ast.AugAssign(target=ast.Name(id="ext_modules"), value=value):
                    self.names.extend(_constructed(value))
                case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="ext_modules")), args=arguments)):
                    self.names.extend(name for argument in arguments for name in _constructed(argument))
                case ast.FunctionDef() | ast.ClassDef():
                    pass
                case _ if _touches(statement):
                    raise UndecidedExtensionError(ast.unparse(statement).partition("\n")[0])

    def _branch(self, test: ast.expr, body: Sequence[ast.stmt], orelse: Sequence[ast.stmt]) -> None:
        value = self.value(test)
        if value is not UNKNOWN:
            self.walk(body if value else orelse)
        elif any(_touches(statement) for statement in (*body, *orelse)):
            raise UndecidedExtensionError(ast.unparse(test))

    def value(self, node: ast.expr) -> object:
        text = ast.unparse(node)
        if text in self.known:
            return self.known[text]
        result: object = UNKNOWN
        match node:
            case ast.Constant(value=constant):
                result = constant
            case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
                values = tuple(self.value(element) for element in elements)
                result = UNKNOWN if UNKNOWN in values else values
            case ast.BoolOp(op=connective, values=operands):
                values = tuple(self.value(operand) for operand in operands)
                result = _combined(values, decisive=isinstance(connective, ast.Or))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                value = self.value(operand)
                result = UNKNOWN if value is UNKNOWN else not value
            case ast.Compare(left=left, ops=[comparison], comparators=[right]):
                result = _compared(comparison, self.value(left), self.value(right))
            case ast.Call(func=ast.Name(id=name), args=[], keywords=[]) if name in self.functions:
                result = self._called(name)
        return result

    def _called(self, name: str) -> object:
        returns = [node for node in ast.walk(self.functions[name]) if isinstance(node, ast.Return)]
        if name in self.calling or len(returns) != 1 or returns[0].value is None:
            return UNKNOWN
        return replace(self, calling=(*self.calling, name)).value(returns[0].value)


def _combined(values: Sequence[object], *, decisive: bool) -> object:
    """Three-valued ``or`` (one true operand decides) and ``and`` (one false operand decides)."""
    if any(value is not UNKNOWN and bool(value) is decisive for value in values):
        return decisive
    return UNKNOWN if UNKNOWN in values else not decisive


def _compared(comparison: ast.cmpop, left: object, right: object) -> object:
    compare = COMPARISONS.get(type(comparison))
    if left is UNKNOWN or right is UNKNOWN or compare is None:
        return UNKNOWN
    try:
        return compare(left, right)
    except TypeError:  # Values that cannot be compared decide nothing.
        return UNKNOWN


def _constructed(node: ast.expr) -> Iterator[str]:
    elements = node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
    for element in elements:
        if not isinstance(element, ast.Call):
            raise UndecidedExtensionError(ast.unparse(element))
        given = {keyword.arg: keyword.value for keyword in element.keywords}
        name = given.get("name", element.args[0] if element.args else None)
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            raise UndecidedExtensionError(ast.unparse(element))
        optional = given.get("optional")
        if not (isinstance(optional, ast.Constant) and optional.value):
            yield name.value.removeprefix("vllm.")


def _touches(statement: ast.stmt) -> bool:
    def changes(node: ast.AST) -> bool:
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="ext_modules"))):
                return True
            case ast.Name(id="ext_modules", ctx=ast.Store()):
                return True
            case _:
                return False

    return any(changes(node) for node in ast.walk(statement))
