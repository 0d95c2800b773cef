"""What faults are injected into: a release on its way to an index."""

from __future__ import annotations

from vllm_wheels_tests.core.publish.conftest import (  # noqa: F401 - pytest finds fixtures by their names
    backend,
    context,
    environment,
    front,
    wheels_of_release,
)
