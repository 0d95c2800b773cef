"""What others wrote reaches a terminal, a page, a log or a message only after what these act on is made visible."""

from __future__ import annotations

import sys

import pytest

from vllm_wheels.commands.options import say
from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.operations.notify import Message, as_webhook
from vllm_wheels.core.texts import TEXT_CHARACTERS, shown, shown_line
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.page import as_html
from vllm_wheels.core.verify.static_checks import report_on, run_static_checks
from vllm_wheels_tests.fixtures.broken_wheels import Recipe

CLEAR = "\x1b[2J\x1b]0;owned\x07"


@pytest.mark.parametrize("text", [CLEAR, "\x9b2J", "a\rb", "\u202egnp.exe", "\ud800", "a\u2028b", "\u200b"])
def test_control_characters_are_visible(text):
    """A name cannot clear my screen, nor change the direction of what I read."""
    assert shown(text).isprintable()
    assert shown(f"{text}\n\tx").endswith("\n\tx")
    shown(text).encode("utf-8")


def test_plain_text_stays():
    """Letters of any script are not touched."""
    assert shown("Grüße, 世界") == "Grüße, 世界"


def test_long_text_is_cut_and_says_so():
    """A name of a megabyte fills no screen."""
    assert shown("x" * (TEXT_CHARACTERS + 5)).endswith("... (5 characters more)")
    assert "\n" not in shown_line("a\nb")


def test_everything_that_quotes_others_is_clean(capsys, tmp_path):
    """Errors, findings, milestones, messages and logs all show what they quote."""
    error = WheelError(f"{CLEAR} is no wheel", why=CLEAR, remedy=CLEAR)
    found = Finding(check="x", severity="error", verdict="convicted", line=f"{CLEAR}\nb", evidence=CLEAR, remedy=CLEAR)
    say(CLEAR)
    message = as_webhook(Message(event="failed", title=CLEAR, text=CLEAR, fields={"a": CLEAR}))
    command = [sys.executable, "-c", f"print({CLEAR!r})"]
    finished = Runner().run(command, log=tmp_path / "log", keep_output=True)
    texts = [str(error), found.line, found.evidence, found.remedy, capsys.readouterr().out, str(message)]
    texts += [*finished.tail, (tmp_path / "log").read_text("utf-8")]
    assert [text for text in texts if "\x1b" in text or "\x07" in text] == []
    assert "\x1b" in finished.output


def test_hostile_member_name_reaches_no_report(tmp_path, settings):
    """A wheel whose members are called by escape sequences has a report that is text."""
    recipe = Recipe(files={f"vllm/{CLEAR}.so": b"\x7fELF", f"vllm/{CLEAR}.txt": "x", f"{CLEAR}.pth": "import os\n"})
    recipe.files.pop(f"vllm/{CLEAR}.so")
    with opened(recipe.write(tmp_path), settings=settings, runner=Runner()) as unpacked:
        report = report_on(unpacked, run_static_checks(unpacked))
    assert report.verdict == "convicted"
    for text in (report.as_markdown(), as_html(report)):
        assert "\x1b" not in text
        assert "owned" in text
