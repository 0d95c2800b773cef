"""Tells people what happened: by a webhook that Slack and its kin understand, and by mail."""

from __future__ import annotations

import os
import smtplib
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, Literal

import requests

from vllm_wheels.core.errors import NotificationError, SettingsError
from vllm_wheels.core.host.http import MESSAGE, may_pass, persistently, session
from vllm_wheels.core.settings import NotificationSettings
from vllm_wheels.core.texts import shown, shown_line

SMTP_PERMANENT = 500
"""Answers of a mail server from here on stay what they are (RFC 5321, 4.2.1)."""

COLOURS = {"failed": "danger", "open": "warning", "mended": "good", "published": "good"}
"""Names of colours as Slack's attachments have them."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What happened: an event for programs; a title of one line, further lines, facts by name and a link for people."""

    event: Literal["failed", "open", "mended", "published"]
    title: str
    text: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    link: str = ""

    def __post_init__(self) -> None:
        """Takes out of its texts, which quote wheels and tools, what a terminal or a page acts on."""
        object.__setattr__(self, "title", shown_line(self.title))
        object.__setattr__(self, "text", shown(self.text))
        fields = {shown_line(name): shown(value) for name, value in self.fields.items()}
        object.__setattr__(self, "fields", fields)


def notify(message: Message, settings: NotificationSettings) -> list[str]:
    """Sends a message by every way that is configured; the failure of one keeps none of the others from being tried.

    Returns:
        The ways it went; none where none is configured.

    Raises:
        NotificationError: a server did not take it, in as many attempts as the policy of messages allows.
        SettingsError: an environment variable that the settings name is not set.
    """
    failures: list[NotificationError] = []
    went = []
    for name, send in _ways(message, settings):
        try:
            persistently(send, MESSAGE, passing=_may_pass)
        except (requests.RequestException, smtplib.SMTPException, OSError) as error:
            failures.append(_failure(name, error))
        else:
            went.append(name)
    if failures:
        raise failures[0]
    return went


def as_webhook(message: Message) -> dict[str, Any]:
    """The message as Slack's incoming webhooks take it: ``text``, and an attachment with the facts."""
    attachment = {
        "color": COLOURS[message.event],
        "fallback": message.title,
        "text": message.text,
        "fields": [{"title": name, "value": value, "short": True} for name, value in message.fields.items()],
    }
    link = f"\n{message.link}" if message.link else ""
    return {"text": f"{message.title}{link}", "attachments": [attachment]}


def as_mail(message: Message, settings: NotificationSettings) -> EmailMessage:
    """The message as a mail of plain text."""
    mail = EmailMessage()
    mail["Subject"] = " ".join(f"[vllm-wheels] {message.title}".split())
    mail["From"] = settings.mail_from or settings.mail_to[0]
    mail["To"] = ", ".join(settings.mail_to)
    mail["X-Vllm-Wheels-Event"] = message.event
    facts = "\n".join(f"{name}: {value}" for name, value in message.fields.items())
    mail.set_content("\n\n".join(part for part in (message.title, facts, message.text, message.link) if part) + "\n")
    return mail


def _ways(message: Message, settings: NotificationSettings) -> Iterator[tuple[str, Callable[[], None]]]:
    if settings.webhook_variable:
        yield "webhook", lambda: _post(message, settings)
    if settings.mail_to:
        yield "mail", lambda: _mail(message, settings)


def _may_pass(error: BaseException) -> bool:
    match error:
        case smtplib.SMTPResponseException():
            return error.smtp_code < SMTP_PERMANENT
        case requests.RequestException():
            return may_pass(error)
    return isinstance(error, OSError)


def _post(message: Message, settings: NotificationSettings) -> None:
    url = secret(str(settings.webhook_variable), "notification.webhook_variable")
    with session(MESSAGE) as opened:
        body, seconds = as_webhook(message), settings.timeout_seconds
        opened.post(url, json=body, timeout=seconds, allow_redirects=False).raise_for_status()


def _mail(message: Message, settings: NotificationSettings) -> None:
    context = ssl.create_default_context()
    host, port, seconds = settings.smtp_host, settings.smtp_port, settings.timeout_seconds
    direct = settings.smtp_security == "tls"
    opened = (
        smtplib.SMTP_SSL(host, port, timeout=seconds, context=context)
        if direct
        else smtplib.SMTP(host, port, timeout=seconds)
    )
    with opened as server:
        if settings.smtp_security == "starttls":
            server.starttls(context=context)
        if settings.smtp_user and settings.smtp_password_variable:
            password = secret(settings.smtp_password_variable, "notification.smtp_password_variable")
            server.login(settings.smtp_user, password)
        server.send_message(as_mail(message, settings))


def secret(variable: str, setting: str) -> str:
    """What an environment variable holds that a setting names.

    Raises:
        SettingsError: it is not set.
    """
    value = os.environ.get(variable)
    if not value:
        what = f"the environment variable {variable} is not set"
        raise SettingsError(what, why=f"{setting} names it", remedy=f"set {variable}, or clear {setting}")
    return value


def _failure(way: str, error: Exception) -> NotificationError:
    # The address of a webhook is its password: the texts of requests' errors hold it.
    if isinstance(error, requests.HTTPError) and error.response is not None:
        why = f"the server answered {error.response.status_code}"
    elif isinstance(error, smtplib.SMTPResponseException):
        why = f"the server answered {error.smtp_code}"
    else:
        why = type(error).__name__
    what = f"nobody could be told by {way}"
    return NotificationError(what, why=why, remedy="correct the notification settings, or see that the server answers")
