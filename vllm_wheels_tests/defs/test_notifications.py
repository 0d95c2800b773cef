"""People are told of failed runs and of published releases, by real servers on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default

import dagster as dg
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.errors import NotificationError, SettingsError
from vllm_wheels.core.operations.notify import Message, as_webhook, notify
from vllm_wheels.defs import automation
from vllm_wheels_tests.fixtures.hook import Hook, listening

SECRET = "s3cret-path"  # noqa: S105 - nobody's
MESSAGE = Message(
    event="failed",
    title="run failed: rebuild 3.12|0.33.0",
    text="wheel/avx512: the compiler was killed",
    fields={"partition": "3.12|0.33.0"},
    link="http://127.0.0.1:3000/runs/1",
)


@pytest.fixture
def hook() -> Iterator[Hook]:
    with listening(f"/{SECRET}") as found:
        yield found


@pytest.fixture
def mailbox(monkeypatch) -> Iterator[tuple[int, list]]:
    """A mail server that wants a password, and what it took."""
    mails: list = []
    # Both ends would ask a name server for this machine's full name, and a test machine may have none that answers.
    monkeypatch.setattr(socket, "getfqdn", lambda *_: "localhost")

    class Taking:
        async def handle_DATA(self, _server, session, envelope):  # noqa: N802 - aiosmtpd's name
            if not session.authenticated:
                return "530 who are you?"
            mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=default)))
            return "250 OK"

    def check(_server, _session, _envelope, _mechanism, given):
        right = (given.login, given.password) == (b"builder", SECRET.encode())
        return AuthResult(success=right, handled=right)

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Controller(Taking(), "127.0.0.1", port, authenticator=check, auth_require_tls=False)
    server.start()
    yield port, mails
    server.stop(no_assert=True)


@pytest.fixture
def by_webhook(hook, monkeypatch):
    monkeypatch.setenv("VLLM_WHEELS_NOTIFICATION__WEBHOOK_VARIABLE", "TEAM_HOOK")
    monkeypatch.setenv("TEAM_HOOK", hook.url)
    return hook


@pytest.fixture
def by_mail(mailbox, monkeypatch):
    port, mails = mailbox
    values = {
        "MAIL_TO": '["team@localhost", "boss@localhost"]',
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(port),
        "SMTP_USER": "builder",
        "SMTP_PASSWORD_VARIABLE": "TEAM_MAIL_PASSWORD",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"VLLM_WHEELS_NOTIFICATION__{name}", value)
    monkeypatch.setenv("TEAM_MAIL_PASSWORD", SECRET)
    return mails


def told() -> list[str]:
    return notify(MESSAGE, configuration.load().notification)


def test_webhook_gets_what_slack_understands(by_webhook):
    """A Slack channel shows title and link, and the facts below them."""
    assert told() == ["webhook"]
    (body,) = by_webhook.bodies
    assert body == as_webhook(MESSAGE)
    assert body["text"].startswith("run failed: rebuild 3.12|0.33.0")
    assert body["attachments"][0]["fields"] == [{"title": "partition", "value": "3.12|0.33.0", "short": True}]


def test_mail_reaches_everybody_named(by_mail):
    """Everybody in mail_to gets a mail of plain text, sent with the server's password."""
    assert told() == ["mail"]
    ((recipients, mail),) = by_mail
    assert recipients == ["team@localhost", "boss@localhost"]
    assert mail["Subject"] == "[vllm-wheels] run failed: rebuild 3.12|0.33.0"
    assert "the compiler was killed" in mail.get_content()


def test_both_ways_are_used_where_both_are_configured(by_webhook, by_mail):
    """One way does not stand in for the other."""
    assert told() == ["webhook", "mail"]
    assert (len(by_webhook.bodies), len(by_mail)) == (1, 1)


def test_nobody_is_told_where_nothing_is_configured():
    """Without configuration nothing is sent, and nothing fails."""
    assert told() == []


def test_server_that_fails_once_is_asked_again(by_webhook):
    """A hiccup of the server loses no message."""
    by_webhook.statuses = [503]
    assert told() == ["webhook"]
    assert len(by_webhook.bodies) == 2


def test_refused_message_is_an_error_that_hides_the_address(by_webhook, by_mail):
    """The address of a webhook is a password: the error does not show it; the mail is sent all the same."""
    by_webhook.statuses = [403, 403, 403]
    with pytest.raises(NotificationError) as caught:
        told()
    assert (caught.value.why, SECRET in str(caught.value)) == ("the server answered 403", False)
    assert len(by_mail) == 1


def test_dead_server_is_an_error_that_hides_the_address(by_webhook, monkeypatch):
    """A webhook that nobody listens at is told as such."""
    monkeypatch.setenv("TEAM_HOOK", f"http://127.0.0.1:1/{SECRET}")
    with pytest.raises(NotificationError) as caught:
        told()
    assert SECRET not in str(caught.value)


def test_wrong_password_of_the_mail_server_is_told_without_it(by_mail, monkeypatch):
    """The password stays out of the error."""
    monkeypatch.setenv("TEAM_MAIL_PASSWORD", "wrong-password")
    with pytest.raises(NotificationError) as caught:
        told()
    assert caught.value.why == "the server answered 535"
    assert "wrong-password" not in str(caught.value)


def test_missing_secret_is_named_by_its_variable(by_webhook, monkeypatch):
    """Whoever forgot to set the variable is told which."""
    monkeypatch.delenv("TEAM_HOOK")
    with pytest.raises(SettingsError, match="TEAM_HOOK is not set"):
        told()


def sensor(name: str) -> dg.SensorDefinition:
    (found,) = [one for one in automation.notifications(configuration.load()) if one.name == name]
    return found


def finished(job_body) -> tuple[dg.DagsterInstance, dg.ExecuteInProcessResult]:
    @dg.op(name="wheel__avx512")
    def step(context):
        job_body(context)

    @dg.job(name="rebuild")
    def job():
        step()

    instance = dg.DagsterInstance.ephemeral()
    return instance, job.execute_in_process(instance=instance, raise_on_error=False)


@pytest.mark.parametrize("url", ["http://builds.example:8080", None])
def test_failed_run_is_told_with_step_and_reason(by_webhook, monkeypatch, url):
    """When a run fails, the message says which step and why, and leads to the run where the address is known."""
    if url:
        monkeypatch.setenv("VLLM_WHEELS_NOTIFICATION__UI_URL", url)

    def fail(_context):
        what = "the compiler was killed\n  why: memory ran out"
        raise dg.Failure(what)

    instance, result = finished(fail)
    context = dg.build_run_status_sensor_context(
        sensor_name="tell_of_failures",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
    ).for_run_failure()
    sensor("tell_of_failures")(context)
    (body,) = by_webhook.bodies
    link = [f"{url}/runs/{result.run_id}"] if url else []
    assert body["text"].splitlines() == ["run failed: rebuild", *link]
    assert body["attachments"][0]["text"] == "wheel__avx512: the compiler was killed\n  why: memory ran out"


def test_published_release_is_told_with_its_facts(by_webhook):
    """When a release is published, the message says what and where."""

    def publish(context):
        event = dg.AssetMaterialization(
            asset_key=["release", "avx512"], partition="3.12|0.33.0", metadata={"repository": "pypi"}
        )
        context.log_event(event)
        context.log_event(dg.AssetMaterialization(asset_key=["wheel", "avx512"]))

    instance, result = finished(publish)
    context = dg.build_run_status_sensor_context(
        sensor_name="tell_of_releases",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_success_event(),
    )
    sensor("tell_of_releases")(context)
    (body,) = by_webhook.bodies
    assert body["text"].startswith("published: release/avx512 3.12|0.33.0")
    assert {"title": "repository", "value": "pypi", "short": True} in body["attachments"][0]["fields"]


def night(instance, body) -> dg.ExecuteInProcessResult:
    """A run of one partition, as one night's."""

    @dg.op(name="wheel__avx512")
    def step(context):
        body(context)

    @dg.job(name="rebuild")
    def job():
        step()

    tags = {"dagster/partition": "3.12|0.33.0"}
    return job.execute_in_process(instance=instance, raise_on_error=False, tags=tags)


def tell(instance, result) -> None:
    context = dg.build_run_status_sensor_context(
        sensor_name="tell",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_success_event() if result.success else result.get_run_failure_event(),
    )
    if result.success:
        sensor("tell_of_releases")(context)
    else:
        sensor("tell_of_failures")(context.for_run_failure())


def test_failure_is_told_once_and_its_end_once(by_webhook):
    """Three nights of the same failure are one message, another failure is one more, and one says that it is over."""

    def broken(what):
        def body(_context):
            said = f"{what}\n  why: line 3"
            raise dg.Failure(said)

        return body

    with dg.instance_for_test() as instance:
        for body in (broken("a"), broken("a"), broken("b"), lambda _: None, lambda _: None):
            tell(instance, night(instance, body))
    told_of = [body["text"].splitlines()[0] for body in by_webhook.bodies]
    assert told_of == [
        "run failed: rebuild 3.12|0.33.0",
        "run failed: rebuild 3.12|0.33.0",
        "went well again: wheel__avx512 3.12|0.33.0",
    ]


def test_open_verdict_is_told_once(by_webhook):
    """Where a wheel cannot be judged here, one message says so, and not one a night."""

    def left_open(context):
        evaluation = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(["verification", "amxbf16"]),
            check_name="generates",
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description="could-not-judge: no AMX here",
            metadata={"verdict": "could-not-judge"},
            partition="3.12|0.33.0",
        )
        context.log_event(evaluation)

    with dg.instance_for_test() as instance:
        for _ in range(2):
            tell(instance, night(instance, left_open))
    (body,) = by_webhook.bodies
    assert body["text"].startswith("could not be judged: verification/amxbf16 3.12|0.33.0")
    assert "no AMX here" in body["attachments"][0]["text"]
