"""Which machine carries out which step: by memory, cores and processor, and by the state of our code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.remotes import Remotes
from vllm_wheels.core.operations import hardware
from vllm_wheels.core.operations.builds import build_graph, rules
from vllm_wheels.core.operations.hardware import Abilities, abilities, queue, queues
from vllm_wheels.core.settings import GUARD_VARIABLE, load
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify import planning
from vllm_wheels.defs import workers
from vllm_wheels_tests.fixtures.building import PYTHON

STRONG = Abilities(cores=8, gigabytes=64.0, disk_gigabytes=500.0, variants=tuple(variants()))
OLD = replace(STRONG, variants=("baseline", "avx512"))

JUDGING, COMPILING = rules()["verification"], rules()["compiled"]


def test_machine_with_everything_listens_to_every_queue():
    """No step waits where there is a machine for all of them."""
    found = queues(STRONG)
    for rule in rules().values():
        for name in variants():
            assert queue(rule, name) in found


def test_wheel_is_tried_only_where_its_processor_is():
    """A release of amxbf16 waits for a machine with AMX; compiles go anywhere."""
    found = queues(OLD)
    assert queue(JUDGING, "avx512") in found
    assert queue(JUDGING, "amxbf16") not in found
    assert queue(JUDGING, "avx512bf16") not in found
    assert queue(COMPILING, "amxbf16") in found


@pytest.mark.parametrize("small", [replace(STRONG, gigabytes=1.0), replace(STRONG, disk_gigabytes=1.0)])
def test_small_machine_compiles_and_tries_nothing(small):
    """A compile never lands where the compiler would be killed for lack of memory, or finds no room."""
    assert queues(small) == [queue(rules()["source"], None)]


def test_worker_with_other_code_hears_of_no_step(monkeypatch):
    """After an update, steps that new code planned wait for workers with that code."""
    before = set(queues(STRONG))
    monkeypatch.setattr(hardware, "code", lambda: "0000000000")
    assert before.isdisjoint(queues(STRONG))


@pytest.mark.parametrize(
    ("flags", "reached"),
    [
        ("fpu avx2 fma f16c", ("baseline",)),
        ("avx2 fma f16c avx512f avx512vl avx512bw avx512dq avx512_vnni", ("baseline", "avx512", "avx512vnni")),
        ("sse2", ()),
        ("", ()),
    ],
    ids=["old", "vnni", "too-old", "untold"],
)
def test_machine_tells_which_variants_it_can_try(monkeypatch, tmp_path, flags, reached):
    """By the flags of its processor; one that reaches no variant still fetches and publishes."""
    monkeypatch.setenv(GUARD_VARIABLE, flags)
    found = abilities(tmp_path)
    assert found.variants == reached
    assert found.cores >= 1
    assert found.gigabytes > 0
    assert found.disk_gigabytes > 0


def test_report_of_a_machine_that_lacks_nothing_serves_one_that_does():
    """Where a worker with AMX has judged a wheel, a machine without AMX takes that report's plan for its own."""
    target = Target(release="0.32.0", python=PYTHON, variant="amxbf16")
    lacking = Plan(artifact="verification", target=target, inputs={"lacking": ["amx_tile"], "a": 1}, steps=())
    better = JUDGING.better(lacking)
    assert better is not None
    assert better.inputs == {"lacking": [], "a": 1}
    assert better.key != lacking.key
    assert JUDGING.better(better) is None


def test_plan_without_the_report_of_a_better_machine_says_what_is_lacking(built, monkeypatch):
    """Only a report that there is takes the place of one's own."""
    builds = build_graph(load(), say=print)
    target = Target(release="0.32.0", python=PYTHON, variant="baseline")
    (*_, (_, kept)) = builds.plans("verification", target)
    assert kept is not None
    monkeypatch.setattr(planning, "lacking", lambda _: ("avx2",))
    (*_, (plan, found)) = build_graph(load(), say=print).plans("verification", target)
    assert found == kept
    assert plan.inputs["lacking"] == []
    monkeypatch.setattr(Remotes, "fetched", lambda *_, **__: None)
    monkeypatch.setattr(type(builds.store), "find", _without("verification", type(builds.store).find))
    (*_, (plan, found)) = build_graph(load(), say=print).plans("verification", target)
    assert found is None
    assert plan.inputs["lacking"] == ["avx2"]


def _without(kind, find):
    return lambda store, wanted, key: None if wanted == kind else find(store, wanted, key)


@pytest.mark.parametrize("kind", rules())
@pytest.mark.parametrize("name", variants())
def test_dagster_k8s_takes_what_each_step_asks_for(kind, name):
    """The job that dagster-k8s itself writes asks for the step's memory and for nodes with its processor."""
    job = pytest.importorskip("dagster_k8s.job")
    asked = workers.tags(kind, name).get("dagster-k8s/config", {})
    config = job.UserDefinedDagsterK8sConfig.from_dict(asked)
    where = job.DagsterK8sJobConfig(
        dagster_home="/opt/dagster/home",
        instance_config_map="instance",
        job_image="image",
        postgres_password_secret=None,
    )
    written = job.construct_dagster_k8s_job(where, args=["run"], job_name="step", user_defined_k8s_config=config)
    pod = written.to_dict()["spec"]["template"]["spec"]
    requests = (pod["containers"][0]["resources"] or {}).get("requests")
    assert bool(requests) == (rules()[kind].hardware.gigabytes > 0)
    labels = pod["node_selector"] or {}
    wanted = {"amxbf16": "AMXTILE", "avx512bf16": "AVX512BF16"}.get(name)
    if kind == "verification" and wanted:
        assert labels[f"feature.node.kubernetes.io/cpu-cpuid.{wanted}"] == "true"
    if kind != "verification":
        assert labels == {}
