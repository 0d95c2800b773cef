"""Reads which operators a PyTorch extension registers: from the strings of a binary, or from its C++ source.

An operator is registered with a schema such as ``rms_norm(Tensor! out, Tensor input, float eps) -> ()``
(``torch.library``), which the binary holds as a string of its own. Which of them stand in a source depends on the
compiler's predefined macros.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.elf import DAMAGED

STRING = re.compile(rb"(?<![^\0])[A-Za-z_]\w*(?:\.\w+)?\([^\0()]*(?:\([^\0()]*\)[^\0()]*)*\) -> [^\0]+(?![^\0])")
SCHEMA = re.compile(r"(?P<name>\w+)(?:\.\w+)?\((?P<parameters>.*)\)\s*->\s*\S.*", re.DOTALL)
CONSTANTS = ".rodata"
"""Sections in which compilers put strings begin with this."""

DEFINITION = re.compile(r'\.def\(\s*((?:"(?:[^"\\\n]|\\.)*"\s*)+)')
LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
DIRECTIVE = re.compile(r"[ \t]*#[ \t]*(ifdef|ifndef|if|elif|else|endif)\b(.*)")
TOKEN = re.compile(r"defined\s*\(\s*(\w+)\s*\)|defined\s+(\w+)|(\w+)")
BOOLEAN = re.compile(r"(?:True|False|and|or|not|[()\s])+")


@dataclass(frozen=True, kw_only=True, order=True)
class Operator:
    """A registered operator.

    Attributes:
        name: without namespace and overload.
        parameters: how many it takes.
    """

    name: str
    parameters: int


def in_binary(path: Path) -> dict[str, Operator]:
    """The operators that an ELF file registers, by name; CannotVerifyError where it is damaged."""
    try:
        with path.open("rb") as stream:
            sections = [each for each in ELFFile(stream).iter_sections() if each.name.startswith(CONSTANTS)]
            strings = [found for each in sections for found in STRING.findall(each.data())]
    except DAMAGED as error:
        what = f"{path.name} is not a sound ELF file"
        raise CannotVerifyError(what, why=str(error) or type(error).__name__, remedy="build the wheel anew") from error
    return _by_name(string.decode(errors="replace") for string in strings)


def in_source(text: str, macros: Collection[str] | None = None) -> dict[str, Operator]:
    """The operators that a C++ source registers, by name: under the macros that are defined, or in all branches.

    Raises:
        ValueError: a condition cannot be understood.
    """
    text = COMMENT.sub(" ", text)
    lines = text.splitlines() if macros is None else _compiled(text.replace("\\\n", " "), macros)
    joined = "\n".join(line for line in lines if not DIRECTIVE.match(line))
    return _by_name("".join(LITERAL.findall(found)) for found in DEFINITION.findall(joined))


def _by_name(schemas: Iterator[str]) -> dict[str, Operator]:
    found = (SCHEMA.fullmatch(schema.strip()) for schema in schemas)
    operators = (Operator(name=each["name"], parameters=_count(each["parameters"])) for each in found if each)
    return {operator.name: operator for operator in sorted(operators)}


def _count(parameters: str) -> int:
    """How many parameters stand between the parentheses; ``Tensor(a!)`` and ``int[2]`` have brackets of their own."""
    plain = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", "", parameters)
    return sum(1 for part in plain.split(",") if part.strip() and part.strip() != "*")


def _compiled(text: str, macros: Collection[str]) -> Iterator[str]:
    """The lines that the preprocessor leaves; of each open block it keeps whether a branch was taken, and this one."""
    opened: list[tuple[bool, bool]] = []
    for line in text.splitlines():
        directive = DIRECTIVE.match(line)
        if directive is None:
            if all(taken for _, taken in opened):
                yield line
        elif directive[1] == "endif":
            opened.pop()
        elif directive[1] in ("else", "elif"):
            done, _ = opened.pop()
            taken = not done and (directive[1] == "else" or holds(directive[2], macros))
            opened.append((done or taken, taken))
        else:
            condition = directive[2] if directive[1] == "if" else f"defined({directive[2].strip()})"
            taken = holds(condition, macros) != (directive[1] == "ifndef")
            opened.append((taken, taken))


def holds(condition: str, macros: Collection[str]) -> bool:
    """Whether a condition of ``defined(...)``, ``&&``, ``||`` and ``!`` holds; ValueError for any other."""

    def answer(token: re.Match[str]) -> str:
        return str((token[1] or token[2] or token[3]) in macros)

    named = TOKEN.sub(answer, condition).replace("&&", " and ").replace("||", " or ").replace("!", " not ")
    if not BOOLEAN.fullmatch(named):
        message = f"the condition {' '.join(condition.split())!r} is not understood"
        raise ValueError(message)
    return bool(eval(named.strip(), {"__builtins__": {}}))  # noqa: S307 - nothing but True, False, and, or, not
