"""The uploading process: looks for its token, sends one file or only preflights, and prints what came of it as JSON.

It and the signing process are the only ones that read a token; nothing of it is printed. They run no foreign code and
start no process.
"""

import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from vllm_wheels.core.errors import CredentialsError
from vllm_wheels.core.publish.sources import Found, as_job, find, parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one line of JSON.

    After ``--look``: ``source``, ``trusted`` and ``identity``; else ``status``, ``reason``, ``retry_after`` and
    ``body``, or ``broke``, or ``failed``; where the token cannot be used: ``error``. Always ends well.
    """
    options = parser()
    options.add_argument("--look", action="store_true", help="only say where the token is")
    options.add_argument("--timeout", type=float)
    options.add_argument("--preflight", action="store_true", help="send everything but the file")
    options.add_argument("--attestation", action="append", default=[])
    options.add_argument("file", nargs="?")
    given = options.parse_args(arguments)
    try:
        found = find(given)
    except CredentialsError as error:
        said: dict[str, Any] = {"error": {"what": error.what, "why": error.why, "remedy": error.remedy}}
        return _tell(json.dumps(said))
    if given.look:
        return _tell(json.dumps({"source": found.source, "trusted": found.trusted, "identity": bool(found.identity)}))
    return _tell(found.redact(json.dumps(_sent(given, found))))


def _tell(line: str) -> int:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return 0


def _sent(given: Any, found: Found) -> dict[str, Any]:
    # Loaded only now: until then this process ends with its parent within milliseconds.
    from vllm_wheels.core.publish.sending import send  # noqa: PLC0415

    if found.trusted:
        as_job(found)
    # Progress and notices of twine are not for whoever reads the JSON, and may quote what was sent.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return send(given, user=found.user, token=found.token)


if __name__ == "__main__":
    sys.exit(main())
