"""What the tests of the graph start from: the miniature release, built and verified in two variants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vllm_wheels_tests.defs.workplace import TARGET, VARIANTS, Workplace
from vllm_wheels_tests.fixtures.building import copy_artifacts, share_compiled, verdict_of_another_machine
from vllm_wheels_tests.fixtures.miniature import variables


@pytest.fixture(scope="session")
def two_built(tmp_path_factory, built_once, miniature_index, torch_folder, compiled_once):
    """State of a workplace in which two variants are built and tried."""
    folder = tmp_path_factory.mktemp("two_built")
    share_compiled(folder / "state", compiled_once)
    copy_artifacts(built_once / "state", folder / "state")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(folder, miniature_index, torch_folder).items():
            patch.setenv(name, value)
        patch.delenv("DAGSTER_HOME", raising=False)
        workplace = Workplace()
        workplace.materialize([f"verification/{VARIANTS[0]}"])
        for name in VARIANTS:
            verdict_of_another_machine(workplace.builds, replace(TARGET, variant=name))
        workplace.materialize(f"verification/{name}" for name in VARIANTS)
    return folder / "state"
