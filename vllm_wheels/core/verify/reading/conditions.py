"""What a condition comes to on a CPU that answers questions in a certain way: true, false, or unknown."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vllm_wheels.core.verify.reading.sources import Function, Package, Source
from vllm_wheels.core.verify.reading.values import UNKNOWN, Host, Place, Value, agreed, dotted, parameters

QUESTION = re.compile(r"torch\.(?:cpu|_C\._cpu)\.(_is_\w+|_init_amx|get_capabilities|_get_cpu_capability)")
"""Python functions by which vLLM asks torch about the CPU."""

OP_QUESTION = re.compile(r"torch\.ops\._C\w*\.(cpu_has_\w+)")
"""Operators that read CPUID themselves."""

OPS = re.compile(r"torch\.ops\._C\w*")
ARCHITECTURE, MACHINE = "get_cpu_architecture", "CpuArchEnum"
X86 = "X86"
OTHERS = re.compile(r"is_(cuda|cuda_alike|rocm|xpu|tpu|hpu|neuron|out_of_tree|unspecified)")
REFUSES, ANSWERS = re.compile(r"(^|\.)_cpu_guard\.refuse"), re.compile(r"(^|\.)_cpu_guard\.answer")
"""Functions of the wheel's guard: it refuses what needs an operator that is not there, and answers for operators."""

MEMBER = re.compile(r"(?:^|\.)[A-Z]\w*\.[A-Z][A-Z0-9_]*$")
"""A member of an enumeration."""

DEPTH = 12
"""Calls of functions that are followed in each other; what lies deeper is unknown."""


@dataclass(frozen=True)
class Conditions:
    """Evaluates conditions of a package on a host.

    Attributes:
        refused: tells why vLLM never makes an object of a class on the host; None where it may.
        reached: tells whether a node can be reached on the host.
    """

    package: Package
    host: Host
    refused: Callable[[Source, ast.ClassDef], Value | None]
    reached: Callable[[Source, ast.AST], bool]
    _unset: dict[str, bool] = field(default_factory=dict, repr=False)
    _stands: dict[str, Value] = field(default_factory=dict, repr=False)
    _returned: dict[tuple[int, str], Value] = field(default_factory=dict, repr=False)
    _set: dict[tuple[int, str], Value] = field(default_factory=dict, repr=False)
    _names: dict[tuple[int, int, str], Value] = field(default_factory=dict, repr=False)

    def value(self, node: ast.AST | None, at: Place) -> Value:  # noqa: C901, PLR0911 - one for each kind of node
        """What an expression comes to as a condition."""
        match node:
            case ast.Constant(value=value):
                return Value(bool(value))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.value(operand, at).inverted()
            case ast.BoolOp(op=op, values=values):
                return self._joined([self.value(each, at) for each in values], decisive=isinstance(op, ast.Or))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                found = self.value(test, at)
                chosen = [body] if found.known is True else [orelse] if found.known is False else [body, orelse]
                return agreed([self.value(each, at) for each in chosen])
            case ast.Tuple(elts=[first, *_]):
                # A refusal with its reason: (False, "needs ...").
                return self.value(first, at)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._compared(left, op, right, at)
            case ast.Call():
                return self._called(node, at)
            case ast.Name(id=name):
                return self._named(name, node, at)
            case ast.Attribute():
                return self._attribute(node, at)
            case ast.NamedExpr(value=value):
                return self.value(value, at)
            case _:
                return UNKNOWN

    def _joined(self, values: list[Value], *, decisive: bool) -> Value:
        """``or`` where true decides, ``and`` where false does."""
        for value in values:
            if value.known is decisive:
                return value
        if all(value.known is not None for value in values):
            return Value(not decisive, frozenset().union(*(value.because for value in values)))
        return UNKNOWN

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr, at: Place) -> Value:
        left = self._followed(left, at)
        negative = isinstance(op, ast.NotEq | ast.NotIn | ast.IsNot)
        others = right.elts if isinstance(right, ast.Tuple | ast.List | ast.Set) else [right]
        names = [dotted(other) for other in others]
        if isinstance(left, ast.Call) and dotted(left.func).endswith(ARCHITECTURE):
            same = any(name.endswith(f"{MACHINE}.{X86}") for name in names)
            found = Value(same, frozenset({ARCHITECTURE}))
        elif dotted(left) == "sys.platform" and all(isinstance(other, ast.Constant) for other in others):
            found = Value(any(ast.literal_eval(other) == "linux" for other in others), frozenset({"sys.platform"}))
        elif len(names) == 1 and isinstance(op, ast.Eq | ast.NotEq | ast.Is | ast.IsNot) and MEMBER.search(names[0]):
            found = self._stands_for_refused(names[0])
        else:
            return UNKNOWN
        return found.inverted() if negative else found

    def _stands_for_refused(self, member: str) -> Value:
        """False for a member of an enumeration that stands for classes which all refuse, so that it is never chosen.

        The branch that turns it into them holds nothing else: ``if backend == Backend.CPU: return [CPUExperts]``.
        """
        if member not in self._stands:
            self._stands[member] = UNKNOWN  # for one that a class compares itself with
            for user, node in self.package.uses(member.rpartition(".")[2]):
                if dotted(node) == member and (found := self._all_refused(user, node)) is not None:
                    self._stands[member] = found
                    break
        return self._stands[member]

    def _all_refused(self, source: Source, node: ast.AST) -> Value | None:
        test = source.parents[node]
        branch = source.parents.get(test)
        if not isinstance(branch, ast.If) or branch.test is not test:
            return None
        statements = [each for each in branch.body if not isinstance(each, ast.Import | ast.ImportFrom)]
        if len(statements) != 1 or not isinstance(statements[0], ast.Return):
            return None
        value = statements[0].value
        classes = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
        because: list[Value | None] = []
        for each in classes:
            found = self.named_class(dotted(each, source), source) if each is not None else None
            because.append(self.refused(*found) if found else None)
        reasons = [each.because for each in because if each is not None]
        return (
            Value(known=False, because=frozenset().union(*reasons))
            if reasons and len(reasons) == len(because)
            else None
        )

    def named_class(self, name: str, source: Source) -> tuple[Source, ast.ClassDef] | None:
        """The class of a dotted name, in the module that an import names or in the file itself."""
        module, _, last = name.rpartition(".")
        owner = self.package.module(module) if module else source
        found = [each for each in owner.defined.get(last, ()) if isinstance(each, ast.ClassDef)] if owner else []
        return (owner, found[0]) if owner and found else None

    def _followed(self, node: ast.expr, at: Place) -> ast.expr:
        """The value that a local name was given once, or the node itself."""
        if isinstance(node, ast.Name):
            values = list(self._assigned(node.id, node, at))
            if len(values) == 1 and values[0] is not None:
                return values[0]
        return node

    def _called(self, node: ast.Call, at: Place) -> Value:  # noqa: PLR0911 - one for each function that is understood
        name = dotted(node.func, at.source)
        if asked := QUESTION.fullmatch(name) or OP_QUESTION.fullmatch(name):
            known = self.host.answers.get(asked[1])
            return Value(known, frozenset({asked[1]}))
        given = [self._given(argument, at) for argument in node.args]
        texts = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        if REFUSES.search(name) and texts:
            return Value(texts[0] not in self.host.operators, frozenset({f"has operator {texts[0]}"}))
        if ANSWERS.search(name) and texts:
            return Value(self.host.answers.get(texts[0]), frozenset({texts[0]}))
        if name == "hasattr" and texts:
            return self._has(node.args[0], str(texts[-1]), at)
        if name == "getattr" and texts and node.args[2:]:
            return self._attribute_or(str(texts[-1] if len(texts) == 1 else texts[0]), node.args[2], at)
        if name == "bool" and len(node.args) == 1:
            return self.value(node.args[0], at)
        last = name.rpartition(".")[2]
        if last == "is_cpu" and not node.args:
            return Value(known=True, because=frozenset({last}))
        if OTHERS.fullmatch(last) and not node.args:
            return Value(known=False, because=frozenset({last}))
        return self._returned_by(node, at)

    def _attribute_or(self, name: str, default: ast.expr, at: Place) -> Value:
        """The default of an attribute that only code sets which is never reached, such as a class that refuses."""
        if name not in self._unset:
            self._unset[name] = False  # for one that is set where it is asked for
            stores = [(source, node) for source in self.package.sources(name) for node in source.stored.get(name, ())]
            self._unset[name] = not any(self.reached(source, node) for source, node in stores)
        return self.value(default, at) if self._unset[name] else UNKNOWN

    def _given(self, node: ast.expr, at: Place) -> ast.expr:
        return at.given.get(node.id, node) if isinstance(node, ast.Name) else node

    def _has(self, owner: ast.expr, name: str, at: Place) -> Value:
        place = dotted(owner, at.source)
        if OPS.fullmatch(place):
            return Value(name in self.host.operators, frozenset({f"has operator {name}"}))
        module = self.package.module(place) if place.startswith(f"{self.package.name}.") else None
        if module is None:
            return UNKNOWN
        return Value(name in module.defined or name in module.stored or name in module.imports)

    def _named(self, name: str, node: ast.AST, at: Place) -> Value:
        if name in at.given:
            return self.value(at.given[name], Place(at.source, depth=at.depth))
        key = (id(at.source), id(at.source.scope(node)), name)
        if at.given or key not in self._names:
            self._names[key] = UNKNOWN  # for a name that is set to what it was
            self._names[key] = self._value_of(name, node, at)
        return self._names[key]

    def _value_of(self, name: str, node: ast.AST, at: Place) -> Value:
        values = list(self._assigned(name, node, at))
        if values:
            return agreed([self.value(value, at) if value else UNKNOWN for value in values])
        origin = at.source.imports.get(name)
        return self._global(*origin.rpartition(".")[::2], at) if origin else UNKNOWN

    def _assigned(self, name: str, node: ast.AST, at: Place) -> Iterator[ast.expr | None]:
        """What a name is given in the innermost scope that sets it; None stands for what cannot be followed."""
        source, scope = at.source, at.source.scope(node)
        while True:
            if isinstance(scope, Function) and name in parameters(scope):
                yield None
                return
            found = [each for each in source.stored.get(name, ()) if isinstance(each, ast.Name)]
            own = [each for each in found if source.scope(each) is scope]
            if own:
                for each in own:
                    around = source.parents[each]
                    yield around.value if isinstance(around, ast.Assign | ast.AnnAssign | ast.NamedExpr) else None
                return
            if isinstance(scope, ast.Module):
                return
            scope = source.scope(scope)

    def _global(self, module: str, name: str, at: Place) -> Value:
        source = self.package.module(module)
        if source is None or at.depth >= DEPTH:
            return UNKNOWN
        return self._named(name, source.module, Place(source, depth=at.depth + 1))

    def _attribute(self, node: ast.Attribute, at: Place) -> Value:
        module, _, name = dotted(node, at.source).rpartition(".")
        if module.startswith(f"{self.package.name}.") and self.package.module(module):
            return self._global(module, name, at)
        key = (id(at.source), node.attr)
        if key not in self._set:
            self._set[key] = UNKNOWN  # for one that is set to what it was
            self._set[key] = self._all_set(node.attr, at)
        return self._set[key]

    def _all_set(self, name: str, at: Place) -> Value:
        """What a file sets an attribute to, wherever it does."""
        source = at.source
        around = [source.parents[each] for each in source.stored.get(name, ()) if isinstance(each, ast.Attribute)]
        set_to = [each.value if isinstance(each, ast.Assign | ast.AnnAssign) else None for each in around]
        return agreed([self.value(each, Place(source)) for each in set_to])

    def function(self, node: ast.Call, at: Place) -> tuple[Source, Function] | None:
        """The function of the package that a call runs, where that can be told."""
        func = node.func
        if isinstance(func, ast.Attribute) and dotted(func.value) in ("self", "cls"):
            around = at.source.scope(node)
            while not isinstance(around, ast.ClassDef | ast.Module):
                around = at.source.scope(around)
            methods = [each for each in around.body if isinstance(each, Function) and each.name == func.attr]
            return (at.source, methods[0]) if len(methods) == 1 else None
        name = dotted(func, at.source)
        module, _, last = name.rpartition(".")
        source = self.package.module(module) if module else at.source
        if source is None:
            return None
        found = [each for each in source.defined.get(last, ()) if source.scope(each) is source.module]
        if not found and module and last in source.imports:
            module, _, last = source.imports[last].rpartition(".")
            source = self.package.module(module)
            found = list(source.defined.get(last, ())) if source else []
        if source is None or len(found) != 1 or not isinstance(found[0], Function):
            return None
        return source, found[0]

    def _returned_by(self, node: ast.Call, at: Place) -> Value:
        found = self.function(node, at)
        if found is None or at.depth >= DEPTH:
            return UNKNOWN
        source, function = found
        given = {
            name: self._given(value, at)
            for name, value in zip(parameters(function), node.args, strict=False)
            if isinstance(self._given(value, at), ast.Constant)
        }
        return self.returned(source, function, Place(source, given, at.depth + 1))

    def returned(self, source: Source, function: Function, at: Place) -> Value:
        """What a function returns, as a condition."""
        key = (id(function), repr({name: ast.dump(value) for name, value in at.given.items()}))
        if key not in self._returned:
            self._returned[key] = UNKNOWN  # for a function that calls itself
            self._returned[key] = self._all_returns(source, function, at)
        return self._returned[key]

    def _all_returns(self, source: Source, function: Function, at: Place) -> Value:
        values, decided = [], frozenset[str]()
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and source.scope(node) is function:
                found = self.barred(node, at)
                if found is None:
                    values.append(self.value(node.value, at) if node.value else Value(known=False))
                else:
                    decided |= found.because
        ended = self.ends(function.body, at)
        if ended is None:
            values.append(Value(known=False))
        else:
            decided |= ended.because
        # A function that never returns refuses as one that returns false.
        found = agreed(values or [Value(known=False)])
        return Value(found.known, found.because | decided)

    def ends(self, block: list[ast.stmt], at: Place) -> Value | None:
        """Whether a block never gets past its last statement, and what decided it; None where it may."""
        for statement in block:
            if (found := self._leaves(statement, at)) is not None:
                return found
        return None

    def _leaves(self, statement: ast.stmt, at: Place) -> Value | None:  # noqa: PLR0911 - one for each statement
        match statement:
            case ast.Return() | ast.Raise() | ast.Continue() | ast.Break():
                return Value(known=True)
            case ast.If(test=test, body=body, orelse=orelse):
                found = self.value(test, at)
                if found.known is not None:
                    inner = self.ends(body if found.known else orelse, at)
                    return Value(known=True, because=found.because | inner.because) if inner else None
                one, other = self.ends(body, at), self.ends(orelse, at)
                return Value(known=True, because=one.because | other.because) if one and other else None
            case ast.With(body=body):
                return self.ends(body, at)
            case ast.Assert(test=test):
                found = self.value(test, at)
                return found if found.known is False else None
            case ast.Expr(value=ast.Call() as call) if REFUSES.search(dotted(call.func, at.source)):
                found = self.value(call, at)
                return found if found.known else None
            case _:
                return None

    def barred(self, node: ast.AST, at: Place) -> Value | None:
        """Why a node is never come to once its function, class or module runs; None where it may be."""
        source = at.source
        inner, around = node, source.parents.get(node)
        while around is not None:
            if (found := self._excluded(inner, around, at)) is not None:
                return found
            if isinstance(around, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                return None
            inner, around = around, source.parents.get(around)
        return None

    def _excluded(self, inner: ast.AST, around: ast.AST, at: Place) -> Value | None:
        for name in ("body", "orelse", "finalbody"):
            block = getattr(around, name, None)
            if isinstance(block, list) and inner in block:
                before = block[: block.index(inner)]
                if (found := self.ends(before, at)) is not None:
                    return found
        match around:
            case ast.If(test=test, body=body, orelse=orelse):
                wanted = True if inner in body else False if inner in orelse else None
            case ast.IfExp(test=test, body=body, orelse=orelse):
                wanted = True if inner is body else False if inner is orelse else None
            case ast.BoolOp(op=op, values=values) if inner in values:
                before = [self.value(each, at) for each in values[: values.index(inner)]]
                stops = isinstance(op, ast.Or)
                return next((each for each in before if each.known is stops), None)
            case _:
                return None
        found = self.value(test, at)
        return found if wanted is not None and found.known is (not wanted) else None
