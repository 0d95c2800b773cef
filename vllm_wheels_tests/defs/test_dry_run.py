"""A dry run shows what a run would do, and does nothing; a run does what the dry run showed."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import jsonschema
import pytest
from pydantic import TypeAdapter

from vllm_wheels.core.builders.local import LocalBuilder
from vllm_wheels.core.engine import graph as builds
from vllm_wheels.core.engine import rendering
from vllm_wheels.core.engine.plan import Step
from vllm_wheels.core.host.commands import PATH, PYTHON, Invocation
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.defs import internals, partitions
from vllm_wheels.defs.keys import key
from vllm_wheels_tests.core.commands import Started, started, unlike
from vllm_wheels_tests.defs.workplace import KINDS, TARGET, Workplace, graph
from vllm_wheels_tests.fixtures.building import dagster

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHAIN = tuple(key(kind, "baseline").to_user_string() for kind in KINDS)


@pytest.fixture
def workplace(settings_environment):
    return Workplace()


def statuses(place: Workplace) -> set[dg.AssetKey]:
    among = [key(kind, "baseline") for kind in KINDS]
    return set(internals.not_fresh(internals.resolver(place.instance, graph()), TARGET.partition, among))


def asset_events(instance: dg.DagsterInstance) -> int:
    kinds = (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION)
    return sum(len(instance.all_logs(run.run_id, of_type=kind)) for run in instance.get_runs() for kind in kinds)


def shown(place: Workplace, name: str = "wheel/baseline") -> dict[str, dict]:
    """The JSON that a dry run of an asset leaves, by artifact."""
    outcome = place.materialize([name], dry_run=True)
    path = place.settings.state_folder / "plans" / outcome.run_id / f"{name.replace('/', '-')}.json"
    document = json.loads(path.read_text("utf-8"))
    return {artifact["artifact"]: artifact for artifact in document["artifacts"]}


def test_dry_run_of_a_whole_chain_executes_and_records_nothing(workplace):
    """Every step of the chain plans, and afterwards store, database and statuses are as they were."""
    outcome = workplace.materialize(CHAIN, dry_run=True)
    plans = workplace.settings.state_folder / "plans" / outcome.run_id
    assert {path.stem.replace("-", "/") for path in plans.iterdir()} == set(CHAIN)
    assert workplace.artifacts() == {}
    assert asset_events(workplace.instance) == 0
    assert statuses(workplace) == {dg.AssetKey.from_user_string(name) for name in CHAIN}


def test_dry_run_over_finished_artifacts_leaves_them_fresh(workplace):
    """A dry run of what is up to date says so, and it stays up to date."""
    workplace.materialize(["source", "metadata/baseline"])
    before = asset_events(workplace.instance)
    assert shown(workplace, "metadata/baseline")["metadata"]["state"] == "in the store"
    assert asset_events(workplace.instance) == before
    assert not statuses(workplace) & {dg.AssetKey("source"), dg.AssetKey(["metadata", "baseline"])}


def test_missing_upstream_artifacts_are_named_as_unknown(workplace):
    """On a bare machine the whole plan comes out, and says what it cannot know yet."""
    artifacts = shown(workplace)
    assert artifacts["source"]["unknown"] == []
    assert artifacts["compiled"]["unknown"] == ["source", "onednn", "torch_env", "native"]
    assert artifacts["compiled"]["key"] is None
    assert "abi of source, not made yet" in json.dumps(artifacts["compiled"]["steps"])


def test_run_executes_the_plan_that_the_dry_run_showed(workplace, monkeypatch):
    """Steps, arguments, commands and environment of the real run are those that were shown."""
    workplace.materialize(["source", "onednn", "torch_env", "native/baseline", "metadata/baseline"])
    before = shown(workplace)
    walked, started = {}, []
    walk, run = builds.carry_out, LocalBuilder.run

    def watched_walk(steps, context):
        walked[context.stage.name.partition("-")[0]] = steps
        return walk(steps, context)

    def watched_run(builder, command, **more):
        started.append(command)
        return run(builder, command, **more)

    monkeypatch.setattr(builds, "carry_out", watched_walk)
    monkeypatch.setattr(LocalBuilder, "run", watched_run)
    workplace.materialize(["wheel/baseline"])
    missing = {name for name, artifact in before.items() if artifact["state"] == "to be made"}
    assert set(walked) == missing
    assert as_shown(walked["compiled"]) == before["compiled"]["steps"]
    assert [step.title for step in walked["wheel"]] == [step["title"] for step in before["wheel"]["steps"]]
    (promised,) = next(step["invocations"] for step in before["compiled"]["steps"] if step["invocations"])
    builder = LocalBuilder(minimum_compiler="12.2")
    argv = [builder.python(TARGET.python) if part == PYTHON else part for part in promised["argv"]]
    environment = {name: value.replace(PATH, builder.path()) for name, value in promised["environment"].items()}
    compiles = [command for command in started if "setup.py" in command.argv]
    assert [(list(one.argv), dict(one.env), one.cwd) for one in compiles] == [(argv, environment, promised["folder"])]


@pytest.fixture
def really_started(monkeypatch) -> dict[tuple[str, str, str], list[Started]]:
    """Commands that a run starts, by artifact, action and check; questions about the machine are no step's work."""
    found: dict[tuple[str, str, str], list[Started]] = {}
    steps: list[list[Started]] = []
    start, build, carry_out = Runner.run, LocalBuilder.run, Step.carry_out
    ask = LocalBuilder._ask  # noqa: SLF001 - what is not to be counted

    def aside(function):
        def called(*args, **more):
            steps.append([])
            try:
                return function(*args, **more)
            finally:
                steps.pop()

        return called

    def watched_start(runner, argv, **more):
        if steps:
            steps[-1].append(started(argv, more.get("env")))
        return start(runner, argv, **more)

    def watched_build(builder, command, **more):
        steps[-1].append(started(command.argv, command.env))
        return aside(build)(builder, command, **more)

    def watched_step(step, context):
        artifact, _, _ = context.stage.name.partition("-")
        (shown,) = as_shown([step])
        steps.append(found.setdefault((artifact, shown["action"], check_of(shown)), []))
        try:
            return carry_out(step, context)
        finally:
            steps.pop()

    monkeypatch.setattr(Runner, "run", watched_start)
    monkeypatch.setattr(LocalBuilder, "run", watched_build)
    monkeypatch.setattr(LocalBuilder, "_ask", aside(ask))
    monkeypatch.setattr(Step, "carry_out", watched_step)
    return found


def test_commands_of_a_run_are_those_that_a_dry_run_on_a_bare_machine_showed(workplace, really_started):
    """Every process of the whole chain stood in the plan, with its environment, and nothing else was started."""
    artifacts = shown(workplace, "verification/baseline")
    steps = [(name, step) for name, artifact in artifacts.items() for step in artifact["steps"]]
    assert really_started == {}
    workplace.materialize(["verification/baseline"])
    differences = []
    for artifact, step in steps:
        commands = [Invocation(**{**each, "argv": tuple(each["argv"])}) for each in step["invocations"]]
        found = really_started.pop((artifact, step["action"], check_of(step)), [])
        differences += [(artifact, step["title"], wrong) for wrong in unlike(commands, found)]
    assert differences == []
    assert {action: commands for action, commands in really_started.items() if commands} == {}


def as_shown(steps) -> list[dict]:
    shown = tuple(rendering.PlannedStep.of(step) for step in steps)
    return TypeAdapter(tuple[rendering.PlannedStep, ...]).dump_python(shown, mode="json")


def check_of(step: dict) -> str:
    """The one check that a step of a verification carries out."""
    arguments = step["arguments"]
    return (arguments.get("check") or "") if isinstance(arguments, dict) else ""


def test_estimate_comes_from_past_runs(workplace):
    """What was made before tells how long it will take, and how sure that is."""
    first = shown(workplace, "metadata/baseline")["metadata"]["estimate"]
    workplace.materialize(["metadata/baseline"])
    again = shown(workplace, "metadata/avx512")["metadata"]["estimate"]
    assert (first["past_runs"], again["past_runs"]) == (0, 1)
    assert again["shortest"] == again["seconds"] == again["longest"]


def test_plan_names_downloads_with_sizes(workplace):
    """What will be fetched is named with its size, and what has none is named too."""
    workplace.materialize(["metadata/baseline"])
    outcome = workplace.materialize(["torch_env"], dry_run=True)
    document = json.loads((workplace.settings.state_folder / "plans" / outcome.run_id / "torch_env.json").read_text())
    assert any(url.startswith("pkg:pypi/torch@2.13.0") for url in document["totals"]["downloads_of_unknown_size"])
    assert document["totals"]["disk_gigabytes"] > 0


def test_json_of_a_plan_follows_the_published_schema(workplace):
    """A program can rely on docs/schemas/plan.schema.json."""
    outcome = workplace.materialize(["wheel/baseline"], dry_run=True)
    path = workplace.settings.state_folder / "plans" / outcome.run_id / "wheel-baseline.json"
    published = json.loads((ROOT / "docs/schemas/plan.schema.json").read_text("utf-8"))
    assert published == rendering.schema()
    jsonschema.validate(json.loads(path.read_text("utf-8")), published)


def test_launchpad_and_jobs_take_the_same_switch(workplace):
    """In the launchpad, and for any job, build_mode makes a run a dry one."""
    from vllm_wheels.definitions import defs  # noqa: PLC0415 - it reads the test's settings

    instance = workplace.instance
    partitions.register(instance, TARGET.release, TARGET.python)
    result = defs.resolve_job_def("rebuild").execute_in_process(
        run_config={"resources": {"build_mode": {"config": {"dry_run": True}}}, "execution": {}},
        partition_key=TARGET.partition,
        instance=instance,
        asset_selection=[dg.AssetKey(["metadata", "avx512"]), dg.AssetKey(["wheel", "avx512"])],
    )
    assert result.success
    assert len(list((workplace.settings.state_folder / "plans" / result.run_id).iterdir())) == 2
    assert asset_events(instance) == 0
    outputs = [event.step_output_data for event in result.all_node_events if event.is_successful_output]
    plans = [output.metadata["plan"].value for output in outputs]
    assert [plan.splitlines()[0] for plan in plans] == ["# Plan: vLLM 0.32.0 avx512, Python " + TARGET.python] * 2


@pytest.mark.parametrize(
    ("selection", "planned"),
    [
        ("metadata/baseline", {"metadata-baseline"}),
        ("*wheel/baseline", {name.replace("/", "-") for name in CHAIN[:-1]}),
    ],
    ids=["one asset", "chain"],
)
def test_dagsters_own_command_takes_the_switch_too(workplace, selection, planned):
    """`dagster asset materialize --config-json` plans one asset or a chain, and leaves no trace but the plans."""
    before = statuses(workplace)
    switch = json.dumps({"resources": {"build_mode": {"config": {"dry_run": True}}}})
    done = dagster("asset", "materialize", "--select", selection, "--config-json", switch)
    assert done.returncode == 0, done.stderr[-3000:]
    published = json.loads((ROOT / "docs/schemas/plan.schema.json").read_text("utf-8"))
    plans = list((workplace.settings.state_folder / "plans").glob("*/*.json"))
    assert {path.stem for path in plans} == planned
    for path in plans:
        jsonschema.validate(json.loads(path.read_text("utf-8")), published)
    assert workplace.artifacts() == {}
    assert asset_events(workplace.instance) == 0
    assert statuses(workplace) == before != set()


def test_markdown_of_a_plan_reads_like_a_shell_session(workplace):
    """A person sees the compile command with its environment, ready to be typed."""
    lines = workplace.lines
    workplace.materialize(["wheel/baseline"], dry_run=True)
    text = "\n".join(lines)
    assert "MAX_JOBS=" in text
    assert "{python} setup.py bdist_wheel --py-limited-api=" in text
    assert "GB of memory" in text
