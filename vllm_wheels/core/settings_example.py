"""Writes a settings file with every key, commented out, out of the definitions of the settings themselves."""

from __future__ import annotations

import json
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from vllm_wheels.core.sections import Section
from vllm_wheels.core.settings import DELIMITER, FILE_VARIABLE, PREFIX, Settings

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

HEAD = f"""\
# Settings of vllm-wheels, each with its default: remove the # before a key to change it.
#
# Written by `vllm-wheels env --settings`. The file applies as vllm-wheels.toml of the working folder, or wherever
# {FILE_VARIABLE} says. A variable wins over the file, an option of the command line over both.
# Lists and tables are written as JSON in a variable. What has ... for a value is not set.
"""

UNSET = "..."
"""Stands where a key has no default that could be written down."""

KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}
NAMED = "NAME"
WIDTH = 118


def example() -> str:
    """The text of the file; kept as docs/vllm-wheels.toml."""
    return HEAD + "".join(f"{line}\n" for line in _lines(Settings, ()))


def _lines(model: type[BaseModel], place: tuple[str, ...]) -> Iterator[str]:
    sections = {name: field for name, field in model.model_fields.items() if _section(field)}
    for name, field in model.model_fields.items():
        if name not in sections:
            yield from _key((*place, name), field)
    for name, field in sections.items():
        section, inner = _section(field), (*place, name)
        assert section is not None  # noqa: S101 - chosen for that above
        if _is_table_of_sections(field):
            inner = (*inner, NAMED)
            yield from ("", f"# {field.description}; {NAMED} is yours to choose", f"#[{'.'.join(inner)}]")
        else:
            yield from ("", f"# {(section.__doc__ or '').splitlines()[0]}", f"[{'.'.join(inner)}]")
        yield from _lines(section, inner)


def _key(place: tuple[str, ...], field: FieldInfo) -> Iterator[str]:
    yield ""
    yield from textwrap.wrap(str(field.description), WIDTH, initial_indent="# ", subsequent_indent="# ")
    hint = _hint(field.annotation)
    # What is one of several by a name of one's own has no variable.
    variable = "" if NAMED in place else f"; {PREFIX}{DELIMITER.join(place).upper()}"
    yield f"# ({hint}{variable})"
    default = field.get_default(call_default_factory=True)
    unset = default is None or field.is_required()
    yield f"#{place[-1]} = {UNSET if unset else _value(default)}"


def _section(field: FieldInfo) -> type[Section] | None:
    """The section of a field that is one, or a table of them."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _is_table_of_sections(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is dict


def _hint(annotation: Any) -> str:
    arguments = [kind for kind in get_args(annotation) if kind is not types.NoneType]
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in arguments)
    if origin in {Union, types.UnionType}:
        return _hint(arguments[0])
    if origin is tuple:
        return f"list of {KINDS[arguments[0]]}"
    if origin is dict:
        return "table of text"
    return KINDS[annotation]


def _value(default: Any) -> str:
    # JSON's texts, numbers and lists are TOML as well, and so is its empty table.
    return json.dumps(str(default) if isinstance(default, Path) else default)
