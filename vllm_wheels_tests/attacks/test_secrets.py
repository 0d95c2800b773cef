"""A token is moved out of every process but the one that uploads; who would carry it about does not start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vllm_wheels.core.errors import CredentialsError
from vllm_wheels.core.host.secrets import private_text, refuse_secrets, sealed
from vllm_wheels_tests.attacks.canary import TOKEN
from vllm_wheels_tests.fixtures.building import run

VARIABLE = "PUBLISH_TOKEN_VLLM_CPU"
SECONDS = 60.0

ASK = """
import os, sys
from vllm_wheels.core.host.secrets import move_out
here = open("/proc/self/environ", "rb").read()
found = move_out()
seen = sys.argv[1] in os.environ.values() or sys.argv[1].encode() in here
print(seen, found.names, os.environ["VLLM_WHEELS_PUBLISH__REPOSITORY"])
"""


def test_program_that_holds_a_token_starts_anew_without_it(tmp_path):
    """Neither its variables nor /proc/PID/environ have the token afterwards; settings of the index it still knows."""
    script = tmp_path / "ask.py"
    script.write_text(ASK)
    canary = "pypi-" + "x" * 8
    given = {**os.environ, VARIABLE: canary, "VLLM_WHEELS_PUBLISH__REPOSITORY": "ours"}
    done = subprocess.run(
        [sys.executable, str(script), canary], env=given, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert done.stdout == f"False {(VARIABLE,)} ours\n"


def test_file_of_secrets_cannot_be_changed():
    """What an uploading process reads is what was put in, whoever else holds the descriptor."""
    secrets = sealed({VARIABLE: TOKEN})
    with pytest.raises(PermissionError):
        os.write(secrets.descriptor, b"x")
    assert secrets.read() == {VARIABLE: TOKEN}
    secrets.forget()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_token_file_that_others_may_read_is_refused(tmp_path, mode):
    """It is named with what to do."""
    path = tmp_path / "tokens"
    path.write_text(f"{VARIABLE}={TOKEN}\n")
    path.chmod(mode)
    with pytest.raises(CredentialsError, match="is not used") as caught:
        private_text(path, "the token file")
    assert "chmod 600" in caught.value.remedy


def test_token_file_that_is_a_link_is_refused(tmp_path):
    """Who may write the folder could point it elsewhere."""
    path = tmp_path / "tokens"
    path.touch(0o600)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(CredentialsError) as caught:
        private_text(tmp_path / "link", "the token file")
    assert caught.value.why == "it is a link"


@pytest.mark.parametrize(
    ("name", "value"),
    [(VARIABLE, TOKEN), ("VLLM_WHEELS_PUBLISH__REPOSITORIES", '{"a": {"simple_url": "http://me:pw@h/"}}')],
)
def test_service_does_not_start_with_a_secret_in_its_environment(monkeypatch, name, value):
    """It would be the parent of all that is built; the message says where to put the token."""
    monkeypatch.setenv(name, value)
    with pytest.raises(CredentialsError, match="does not start with secrets") as caught:
        refuse_secrets("the code location")
    assert "publish.token_file" in caught.value.remedy
    assert value not in str(caught.value)


def test_web_ui_does_not_start_with_a_token(settings_environment):
    """`vllm-wheels ui` in a shell with a token ends at once, and says where the token goes."""
    done = run("ui", **{VARIABLE: TOKEN})
    assert done.returncode == CredentialsError.exit_code
    assert VARIABLE in done.stderr
    assert TOKEN not in done.stdout + done.stderr
