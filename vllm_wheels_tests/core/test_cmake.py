"""CMake text is read as CMake reads it: comments, brackets, and branches that no x86-64 host takes."""

from __future__ import annotations

import pytest

from vllm_wheels.core.formats.cmake import commands, uncommented, unquoted


def test_commands_are_read_past_comments_and_strings():
    """A parenthesis in a comment or in a quoted text does not confuse the reading of CMake."""
    text = '# no (\nif (A AND (B OR C))\n  set(X "a)b" # c)\n    d)\nelse()\nset(Y)\nendif()\nset(Z)\n'
    found = commands(text)
    assert [(command.name, command.arguments) for command in found if command.name == "set"] == [
        ("set", ("X", '"a)b"', "d")),
        ("set", ("Y",)),
        ("set", ("Z",)),
    ]
    assert [command.branch for command in found if command.name == "set"] == [7, text.index("else"), None]


@pytest.mark.parametrize("level", ["", "=", "=="])
def test_bracket_comment_is_no_command(level):
    """What stands in a bracket comment of any level is commented out, over several lines."""
    text = f"set(A)\n#[{level}[ set(B)\nset(C)\n]] ]{level}] set(D)\n" if level else "set(A)\n#[[ set(B)\n]] set(D)\n"
    assert [command.arguments for command in commands(text)] == [("A",), ("D",)]
    assert uncommented(text).split() == ["set(A)", "set(D)"]


def test_bracket_argument_is_one_argument():
    """Parentheses, quotes and number signs in a bracket argument mean nothing."""
    (command,) = commands('set(X [=[\n(" # ]] ]=] "q" -Da="b c" d\\;e)')
    assert command.arguments == ("X", '[=[\n(" # ]] ]=]', '"q"', '-Da="b c"', "d\\;e")
    assert [unquoted(argument) for argument in command.arguments[1:3]] == ['(" # ]] ', "q"]


def test_value_behind_a_keyword_has_no_quotes():
    """A tag may be written with quotes or without."""
    (command,) = commands('FetchContent_Declare(oneDNN GIT_TAG "v3.13" GIT_SHALLOW)')
    assert (command.name, command.after("GIT_TAG"), command.after("GIT_SHALLOW")) == (
        "fetchcontent_declare",
        "v3.13",
        None,
    )


def test_branch_for_other_processors_is_not_reached():
    """Of an if with an else the text tells which one an x86-64 host takes, or that it does not tell."""
    text = "if(ASIMD_FOUND)\nset(A)\nelseif(X)\nset(B)\nelse()\nset(C)\nendif()\nif(NOT S390_FOUND)\nset(D)\nendif()\n"
    reached = {command.arguments: command.reached for command in commands(text) if command.name == "set"}
    assert reached == {("A",): False, ("B",): None, ("C",): None, ("D",): True}


def test_unbalanced_rest_is_left_out():
    """A file that ends within a command shows the commands before it."""
    assert [command.name for command in commands("set(A)\nmessage(B (C)\n")] == ["set"]


def test_condition_that_nests_without_end_decides_nothing():
    """A command behind parentheses that nobody would write is taken for one that may or may not run."""
    text = f"if ({'(' * 9000}TRUE{')' * 9000})\nset(x 1)\nendif()"
    assert next(each.reached for each in commands(text) if each.name == "set") is None
