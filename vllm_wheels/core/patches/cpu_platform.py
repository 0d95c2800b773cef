"""Makes vLLM detect a CPU build although the wheel's version has no ``+cpu``, which the public index refuses.

vLLM searches its own version for ``cpu`` in one function of ``vllm/platforms/__init__.py``, and from 0.26 to 0.31 also
in ``vllm/triton_utils/importing.py``. ``VLLM_TARGET_DEVICE`` is not needed then.
"""

from __future__ import annotations

import re

from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Edit, Tree

PLATFORMS = "vllm/platforms/__init__.py"
ANSWER = "return substr in vllm_version"
MARK = ' + "+cpu"'
SEARCHED = r"""["']cpu["']\s+in\s+[\w.]*version\(\s*["']{distribution}["']\s*\)"""
"""The version being searched in place, after the lookup in it was renamed."""


def apply(tree: Tree, wanted: Wanted) -> None:
    """Appends ``+cpu`` to the version wherever vLLM searches it for ``cpu``."""
    tree.replace(Edit(path=PLATFORMS, old=ANSWER, new=ANSWER + MARK))
    searched = re.compile(SEARCHED.format(distribution=re.escape(wanted.distribution)))
    # Whatever asks for the version was changed by the patch "lookups", which comes before.
    for path, text in tuple(tree.changed.items()):
        tree.write(path, searched.sub(lambda found: found[0] + MARK, text))


PATCH = Patch(name="platform", apply=apply)
