"""Renders the description of a METADATA file as Markdown, as the package index does; prints whether anything came.

A program of its own, so that a description which is made to take hours ends with it.
"""

import sys
from email import message_from_bytes
from pathlib import Path

from readme_renderer import markdown


def main() -> None:
    """Renders and prints."""
    message = message_from_bytes(Path(sys.argv[1]).read_bytes())
    payload = message.get_payload(decode=True)
    body = payload.decode("utf-8", errors="replace") if isinstance(payload, bytes) else ""
    sys.stdout.write(f"{bool(markdown.render(body or str(message['Description'] or '')))}\n")


if __name__ == "__main__":
    main()
