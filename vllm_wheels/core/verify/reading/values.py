"""Values of conditions, and what they depend on: the CPU, and the place where a condition stands."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field

from vllm_wheels.core.formats.op_schemas import Operator
from vllm_wheels.core.verify.reading.sources import Function, Source


@dataclass(frozen=True)
class Value:
    """Outcome of a condition, and the questions that decided it; None is unknown."""

    known: bool | None = None
    because: frozenset[str] = frozenset()

    def inverted(self) -> Value:
        """Its negation."""
        return Value(None if self.known is None else not self.known, self.because)


UNKNOWN = Value()


@dataclass(frozen=True)
class Host:
    """A CPU, as vLLM sees it through a wheel.

    Attributes:
        answers: to questions about the CPU; a question that is not in it has no known answer.
        operators: what the extension registers that is imported there.
    """

    answers: Mapping[str, bool]
    operators: Mapping[str, Operator]


@dataclass(frozen=True)
class Place:
    """Where an expression stands: its file, and values of parameters that a caller gave as constants."""

    source: Source
    given: Mapping[str, ast.expr] = field(default_factory=dict)
    depth: int = 0


def dotted(node: ast.AST, source: Source | None = None) -> str:
    """``a.b.c`` of a chain of attributes, with what an import set in place of its first name; else nothing."""
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, source)
        return f"{base}.{node.attr}" if base else ""
    if isinstance(node, ast.Name):
        return source.imports.get(node.id, node.id) if source else node.id
    return ""


def parameters(function: Function) -> list[str]:
    """Names of the parameters that a function takes, in their order."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return [each.arg for each in every if each is not None]


def agreed(values: list[Value]) -> Value:
    """The value that all agree on."""
    if values and values[0].known is not None and all(each.known is values[0].known for each in values):
        return Value(values[0].known, frozenset().union(*(each.because for each in values)))
    return UNKNOWN
