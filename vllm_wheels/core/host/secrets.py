"""Keeps tokens out of every process but the one that uploads: moved out of the environment, handed on unread."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import stat
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.errors import CredentialsError

SECRET = re.compile(r"PUBLISH_TOKEN\w*|TWINE_(USERNAME|PASSWORD)|UV_PUBLISH_\w+|ACTIONS_ID_TOKEN_REQUEST_\w+")
"""Variables that hold tokens for uploads, or what one can be had with."""

PRIVATE = re.compile(r"VLLM_WHEELS_PUBLISH__\w+")
"""Settings that name indexes, whose addresses may hold a password for reading."""

MOVED = "_VLLM_WHEELS_MOVED"
"""Names the two files in memory and the secret variables, for this program as it starts itself anew."""

PR_SET_DUMPABLE = 4
"""Number of the request in linux/prctl.h."""

REMEDY = "put tokens into the file of publish.token_file (mode 600) or a keyring, and unset the variable"


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Secret variables that only an uploading process reads; everybody else hands the descriptor on.

    Attributes:
        descriptor: of a sealed file in memory that has no name; None where there are none.
        names: of the variables.
    """

    descriptor: int | None = None
    names: tuple[str, ...] = ()

    def read(self) -> Mapping[str, str]:
        """The variables with their values; for the process that uploads or signs."""
        if self.descriptor is None:
            return {}
        # Not by ``read``: all who hold the descriptor share its position.
        found: dict[str, str] = json.loads(os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0))
        return found

    def forget(self) -> Secrets:
        """Closes the file, so that this process cannot even hand it on; the names remain."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        return Secrets(names=self.names)


def sealed(values: Mapping[str, str]) -> Secrets:
    """Puts variables into a file in memory that nobody can change any more (memfd_create(2))."""
    if not values:
        return Secrets()
    descriptor = os.memfd_create("secrets", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, json.dumps(dict(values)).encode())
    kinds = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, kinds)
    return Secrets(descriptor=descriptor, names=tuple(sorted(values)))


def move_out() -> Secrets:
    """Takes the secrets out of this process's environment, and returns what may be handed to an uploading process.

    What a process was started with stays readable in /proc/PID/environ whatever it unsets (proc(5)), so the program
    starts itself anew without it: it returns only in a process that was started without secrets.
    """
    become_unreadable()
    moved = os.environ.pop(MOVED, None)
    if moved is None:
        if found := {name: value for name, value in os.environ.items() if is_withheld(name)}:
            _start_anew(found)
        return Secrets()
    tokens, settings, names = json.loads(moved)
    private = Secrets(descriptor=settings)
    # In this process's own memory alone.
    os.environ.update(private.read())
    private.forget()
    if tokens is not None:
        os.set_inheritable(tokens, False)  # noqa: FBT003 - its signature
    return Secrets(descriptor=tokens, names=tuple(names))


def _start_anew(found: Mapping[str, str]) -> None:
    tokens = sealed({name: value for name, value in found.items() if SECRET.fullmatch(name)})
    settings = sealed({name: value for name, value in found.items() if PRIVATE.fullmatch(name)})
    for each in (tokens.descriptor, settings.descriptor):
        if each is not None:
            os.set_inheritable(each, True)  # noqa: FBT003 - its signature
    kept = {name: value for name, value in os.environ.items() if name not in found}
    kept[MOVED] = json.dumps([tokens.descriptor, settings.descriptor, tokens.names])
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)  # noqa: S606 - no shell is wanted


def is_withheld(name: str) -> bool:
    """Whether a variable is one that no process inherits; who needs one is given it."""
    return bool(SECRET.fullmatch(name) or PRIVATE.fullmatch(name) or name == MOVED)


def become_unreadable() -> None:
    """Closes this process's memory, environment and descriptors to other processes of its user (prctl(2)).

    Root still reads them, which is why foreign code never runs as root of this machine.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def refuse_secrets(what: str, names: Collection[str] | None = None) -> None:
    """Refuses to start a service that would carry secrets about, with itself the parent of foreign code.

    Raises:
        CredentialsError: a variable holds a secret, or a password stands in the address of an index.
    """
    held = sorted(names or [name for name in os.environ if SECRET.fullmatch(name)])
    held += sorted(name for name, value in os.environ.items() if PRIVATE.fullmatch(name) and "@" in value)
    if held:
        why = f"{held[0]} is set, and what it builds could read a variable of its parents"
        refused = f"{what} does not start with secrets in its environment"
        raise CredentialsError(refused, why=why, remedy=REMEDY)


def private_text(path: Path, what: str) -> str:
    """The text of a file that only its owner, this user or root, may read or write; no link is followed.

    Raises:
        CredentialsError: there is none, or others may read it.
    """
    refused = f"{what} {path} is not used"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else (error.strerror or str(error))
        raise CredentialsError(refused, why=reason, remedy=f"create it: install -m 600 /dev/null {path}") from error
    with os.fdopen(descriptor, encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o077:
            why = f"it has mode {stat.S_IMODE(status.st_mode):o} and owner {status.st_uid}: others may read or write it"
            raise CredentialsError(refused, why=why, remedy=f"chown {os.geteuid()} {path}; chmod 600 {path}")
        return stream.read()
