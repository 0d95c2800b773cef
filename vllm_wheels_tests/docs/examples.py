"""Examples of the command line in texts, and whether the command line as it is takes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
from packaging.version import InvalidVersion, Version

from vllm_wheels.cli import cli
from vllm_wheels.core.errors import UnknownVariantError
from vllm_wheels.core.variants import variant
from vllm_wheels_tests.docs.pages import Page

START = re.compile(r"(?:^|(?<=[\s\"`(/]))(?:vllm-wheels|\./run)(?= )")
END = re.compile(r",\s|&&|\|\||[|;>)`]|\s#|\"?\)\"")
PROGRAMS = {"test", "docs"}
"""What ``./run`` does itself; everything else it hands to vllm-wheels."""

PLACEHOLDER = re.compile(r"^[A-Z][A-Z.]*$|\.\.\.|…|<.*>|\$")
"""A value that the reader is to replace."""

SYNOPSIS = re.compile(r"[\[\]]|\.\.\.|(?<= )\|(?= )|\|(?=all\b)")


def of_page(page: Page) -> list[str]:
    """The examples of a page, one command each, in code blocks and in sentences."""
    texts = [*(block.text for block in page.blocks if block.language not in {"json", "toml", "ini"}), *page.spans]
    return [command for text in texts for command in of_text(text)]


def of_text(text: str) -> list[str]:
    """The commands in a text; a backslash at the end of a line joins it to the next."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for start in START.finditer(line):
            rest = line[start.start() :]
            quoted = re.sub(r"'[^']*'|\"[^\"]*\"", lambda match: "_" * len(match[0]), rest)
            end = END.search(quoted)
            found.append(rest[: end.start()].strip() if end else rest.strip())
    return found


def complaint(command: str) -> str | None:
    """What the parser says against a command; None if it takes it."""
    words = shlex.split(re.sub(r"<[^>]*>", "PLACEHOLDER", command), comments=True)[1:]
    if command.startswith("./run") and words[:1] and words[0] in PROGRAMS:
        return None
    try:
        _parse(cli, [word for word in (SYNOPSIS.sub("", word) for word in words) if word])
    except click.UsageError as error:
        return error.format_message()
    except (UnknownVariantError, InvalidVersion) as error:
        return str(error)
    return None


def _parse(command: click.Command, words: list[str]) -> None:
    context = click.Context(command, info_name=command.name)
    if not words:
        # A bare name is a mention, not an example.
        return
    options, rest, _ = command.make_parser(context).parse_args(list(words))
    if isinstance(command, click.Group):
        if rest:
            _parse(_subcommand(command, context, rest[0]), rest[1:])
        return
    if rest:
        message = f"unexpected: {rest}"
        raise click.UsageError(message)
    for parameter in command.params:
        _judge(parameter, options.get(str(parameter.name)), context)


def _subcommand(group: click.Group, context: click.Context, name: str) -> click.Command:
    found = group.get_command(context, name)
    if found is None:
        message = f"no such command: {name}"
        raise click.UsageError(message)
    return found


def _judge(parameter: click.Parameter, given: object, context: click.Context) -> None:
    if parameter.required and given in (None, (), []):
        message = f"missing: {parameter.name}"
        raise click.UsageError(message)
    for value in _values(given):
        if PLACEHOLDER.search(value):
            continue
        if "--variant" in parameter.opts:
            for name in set(value.split(",")) - {"all", "recommended"}:
                variant(name)
        elif "--release" in parameter.opts:
            Version(value)
        elif not isinstance(parameter.type, click.Path):
            parameter.type.convert(value, parameter, context)


def _values(given: object) -> Iterator[str]:
    if isinstance(given, str):
        yield given
    elif isinstance(given, list | tuple):
        for each in given:
            yield from _values(each)
