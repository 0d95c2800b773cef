"""Every operator that the wheel's Python code can reach is registered by the extension that vLLM imports there.

Which question about the CPU guards which operator is read from the code. So are new questions: one that no ceiling
knows would be answered by the CPU, past the wheel's level.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from vllm_wheels.core.formats.op_schemas import Operator, in_binary
from vllm_wheels.core.patches.features import lacking_features
from vllm_wheels.core.patches.guard_files import GUARD, INIT
from vllm_wheels.core.variants import known_questions, lowest, variants
from vllm_wheels.core.verify.checks import Check, Judgement, convicted_of, passed, skipped
from vllm_wheels.core.verify.reading.conditions import OP_QUESTION, QUESTION
from vllm_wheels.core.verify.reading.reach import Reach
from vllm_wheels.core.verify.reading.sources import Package, Source
from vllm_wheels.core.verify.reading.values import Host, Place, dotted
from vllm_wheels.core.verify.static.guard import guard_table
from vllm_wheels.core.verify.static.machine_code import DISPATCHED
from vllm_wheels.core.verify.unpacked import UnpackedWheel

KNOWN = "cpu_operators.toml"
PLAIN = "_C"
CHOICE, IMPORTS = "vllm/platforms/cpu.py", "import_kernels"
NAMESPACES = b"torch.ops._C"
NAMESPACE = re.compile(r"torch\.ops\._C\w*")
ASKS = (b"torch.cpu.", b"torch._C._cpu.", b"torch.ops._C.cpu_has_")
ASKING = re.compile(r"cpu_(has|supports)_\w+")
"""Names of operators that read the CPU's features themselves."""

REMEDY = "register the operator, or refuse before in a sentence (patch 'refusals'); put a new question into a ceiling"


@dataclass(frozen=True, kw_only=True)
class Level:
    """A CPU as the wheel lets vLLM see it, and the extension that vLLM imports there."""

    name: str
    extension: str
    host: Host


@cache
def cpu_operators() -> frozenset[str]:
    """Operators that some release registers on some CPU; all others are of GPUs, and nothing calls them on a CPU."""
    text = files(__package__).joinpath(KNOWN).read_text("utf-8")
    return frozenset(tomllib.loads(text)["operators"])


def _operators(unpacked: UnpackedWheel) -> Judgement:
    extensions = {
        binary.name.removeprefix("vllm/").partition(".")[0]: in_binary(binary.path)
        for binary in unpacked.binaries
        if DISPATCHED.fullmatch(binary.name)
    }
    if INIT not in unpacked.file.members or not any(extensions.values()):
        return skipped("no extension of vLLM registers operators")
    said = guard_table(unpacked.text(GUARD)) if GUARD in unpacked.file.members else {}
    package = Package(unpacked.folder)
    levels = list(_levels(unpacked, package, extensions, said))
    faults = dict.fromkeys(fault for level in levels for fault in _faults(level, package, extensions, said))
    if faults:
        return convicted_of(list(faults), remedy=REMEDY)
    counts = ", ".join(f"{len(level.host.operators)} as {level.name}" for level in levels)
    return passed(f"registers all operators that can be reached ({counts}){_lacking(said)}")


def _lacking(said: Mapping[str, object]) -> str:
    """What does not run with this wheel, and which one runs it, by the wheel's own guard."""
    elsewhere = said.get("elsewhere")
    features = lacking_features(elsewhere) if isinstance(elsewhere, dict) else {}
    listed = ", ".join(f"{words} ({other} does)" for words, other in features.items())
    return f"; does not run {listed}" if listed else ""


def _levels(
    unpacked: UnpackedWheel,
    package: Package,
    extensions: Mapping[str, Mapping[str, Operator]],
    said: Mapping[str, object],
) -> Iterator[Level]:
    """The CPUs to look at: one for a wheel with a ceiling and one extension, else each step of the ladder."""
    own = unpacked.variant or lowest()
    ceiling = said.get("ceiling")
    if isinstance(ceiling, tuple | list) and ceiling and set(extensions) == {PLAIN}:
        answers = {str(question): False for question in ceiling}
        yield Level(name=own.name, extension=PLAIN, host=Host(answers, extensions[PLAIN]))
        return
    names = list(variants())
    for name in names[names.index(own.name) :]:
        answers = _answers(name)
        chosen = _imported(package, answers) & set(extensions)
        extension = next(iter(sorted(chosen)), PLAIN)
        yield Level(name=name, extension=extension, host=Host(answers, extensions.get(extension, {})))


def _answers(name: str) -> dict[str, bool]:
    """The answers of a CPU of a variant's level and no higher; what only the highest step has may be there or not."""
    steps = list(variants().values())
    denied, undecided = variants()[name].ceiling, steps[-2].ceiling
    return {
        question: question not in denied
        for question in known_questions()
        if question in denied or question not in undecided
    }


def _imported(package: Package, answers: Mapping[str, bool]) -> set[str]:
    """The extensions that ``import_kernels`` imports on a CPU, without their package."""
    if CHOICE not in package.texts:
        return {PLAIN}
    source, reach = package.source(CHOICE), Reach(package, Host(answers, {}))
    found = [
        alias.name.rpartition(".")[2]
        for node in source.importing
        if getattr(source.scope(node), "name", "") == IMPORTS and not reach.conditions.barred(node, Place(source))
        for alias in node.names
    ]
    return set(found) or {PLAIN}


def _faults(
    level: Level, package: Package, extensions: Mapping[str, Mapping[str, Operator]], said: Mapping[str, object]
) -> Iterator[str]:
    lacking = said.get("elsewhere")
    named = set(lacking) if isinstance(lacking, dict) else set()
    known = cpu_operators().union(named, *extensions.values())
    reach = Reach(package, level.host)
    for name in sorted(known):
        yield from _misused(name, level, reach)
    for name in sorted(named & set(level.host.operators)):
        yield f"{GUARD} says that the wheel lacks {name}, and {level.extension} registers it"
    yield from _unknown_questions(level, reach)


def _misused(name: str, level: Level, reach: Reach) -> Iterator[str]:
    operator = level.host.operators.get(name)
    for source, node in _calls(reach.package, name):
        given = _given(source, node)
        if operator and given <= operator.parameters:
            continue
        if chain := reach.chain(source, node):
            how = f"takes {operator.parameters} arguments and is given {given}" if operator else "is not registered"
            yield f"{name} {how} by {level.extension} (on a CPU as {level.name}): {' < '.join(chain)}"
            return


def _calls(package: Package, name: str) -> Iterator[tuple[Source, ast.Attribute]]:
    for path in package.holding(name):
        if NAMESPACES in package.texts[path]:
            source = package.source(path)
            for node in source.used.get(name, ()):
                if isinstance(node, ast.Attribute) and NAMESPACE.fullmatch(dotted(node.value, source)):
                    yield source, node


def _given(source: Source, node: ast.AST) -> int:
    """How many arguments a call gives; none for what is no call."""
    call = source.parents.get(node)
    if not isinstance(call, ast.Call) or call.func is not node:
        return 0
    return len(call.args) + len(call.keywords)


def _unknown_questions(level: Level, reach: Reach) -> Iterator[str]:
    known = set(known_questions())
    for name in sorted(level.host.operators):
        if ASKING.fullmatch(name) and name not in known:
            yield f"{level.extension} asks the CPU by {name}, a question that no ceiling knows"
    for path, text in reach.package.texts.items():
        if not any(sign in text for sign in ASKS):
            continue
        source = reach.package.source(path)
        for node in (each for uses in source.used.values() for each in uses if isinstance(each, ast.Attribute)):
            name = dotted(node, source)
            asked = QUESTION.fullmatch(name) or OP_QUESTION.fullmatch(name)
            if asked and asked[1] not in known and reach.chain(source, node):
                yield f"{source.place(node)} asks {name}, a question that no ceiling knows"


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check(
        "operators",
        "compare the operators that can be reached with those registered",
        _operators,
        seconds=5,
        inputs=("variant", "variants"),
        tools=("packaging", "pyelftools"),
    ),
)
