"""Tells uv which package index to use, and reads in its output whether that index could be reached."""

import re
from collections.abc import Mapping

from vllm_wheels.core.settings import Settings

UNREACHABLE = re.compile(
    r"failed to (fetch|download)|received some unexpected|error sending request|timed out"
    r"|network (was|connectivity is) disabled",
    re.IGNORECASE,
)
"""What uv says of an index that does not answer, or not as it should."""

CPU_INDEX = re.compile(r"/cpu(/|$)")
"""How the address of an index of CPU builds ends: PyTorch's own is laid out so, and its mirrors keep the layout."""


def index_arguments(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Arguments of uv that name the package index and further places.

    The settings win; where they are silent uv's own variables stay in force, and where those are not set either, pip's
    are handed to uv, which does not read them.
    """
    index = settings.index
    url = [index.url] if index.url else _of_pip(environ, "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
    extra = index.extra_urls or _of_pip(environ, "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
    links = index.find_links or _of_pip(environ, "PIP_FIND_LINKS", "UV_FIND_LINKS")
    arguments = [part for one in url[:1] for part in ("--default-index", one)]
    arguments += [part for one in extra for part in ("--index", one)]
    arguments += [part for one in links for part in ("--find-links", one)]
    if extra and "UV_INDEX_STRATEGY" not in environ:
        # Pip, whose meaning these addresses have, takes the best version of all places; uv would stop at the first that
        # knows the name, and an index of torch builds knows old versions of many.
        arguments += ["--index-strategy", "unsafe-best-match"]
    return arguments


def _of_pip(environ: Mapping[str, str], variable: str, *of_uv: str) -> list[str]:
    return [] if any(environ.get(name) for name in of_uv) else environ.get(variable, "").split()
