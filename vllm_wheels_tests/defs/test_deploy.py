"""What deploy/ says holds: its files are valid; the code location runs on PostgreSQL, in containers, on one cache."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from vllm_wheels.core.target import Target
from vllm_wheels.defs import home, partitions
from vllm_wheels_tests.defs.running_ui import running_ui, until
from vllm_wheels_tests.defs.workplace import Workplace
from vllm_wheels_tests.fixtures import servers

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RUN_SECONDS = 300


INSTANCES = [ROOT / "vllm_wheels/defs/dagster.yaml", DEPLOY / "dagster.yaml", DEPLOY / "workers/dagster.yaml"]


def loaded(path: Path):
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("path", INSTANCES, ids=lambda path: path.parent.name)
def test_installed_dagster_takes_every_key_of_dagster_yaml(path, tmp_path):
    """Neither file holds a key that the installed Dagster does not know."""
    shutil.copy(path, tmp_path / "dagster.yaml")
    found, _ = dagster_instance_config(str(tmp_path))
    (limit,) = found["concurrency"]["runs"]["tag_concurrency_limits"]
    assert limit["limit"] < found["concurrency"]["runs"]["max_concurrent_runs"]


def test_compose_file_names_no_secret_and_publishes_on_loopback_only():
    """Passwords come from the environment, and only this machine reaches the web UI."""
    services = loaded(DEPLOY / "compose.yaml")["services"]
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("${")
    assert services["web"]["ports"] == ["127.0.0.1:3000:3000"]
    assert [name for name, service in services.items() if "ports" in service] == ["web"]


def test_logs_of_runs_can_be_read_in_the_web_ui():
    """The logs of runs lie in a folder of the machine, which the web server sees too."""
    folder = loaded(DEPLOY / "dagster.yaml")["compute_logs"]["config"]["base_dir"]
    services = loaded(DEPLOY / "compose.yaml")["services"]
    for name in ("code", "web"):
        shown = [volume.split(":")[1] for volume in services[name]["volumes"]]
        assert any(folder == each or folder.startswith(f"{each}/") for each in shown)


def test_only_the_code_location_reaches_the_engine():
    """Whoever reaches the engine is root of the machine: web server and daemon, which others talk to, do not."""
    services = loaded(DEPLOY / "compose.yaml")["services"]
    mounted = {name: " ".join(service.get("volumes", [])) for name, service in services.items()}
    assert [name for name, volumes in mounted.items() if "docker.sock" in volumes] == ["code"]
    assert loaded(DEPLOY / "dagster.yaml")["run_launcher"]["class"] == "DefaultRunLauncher"


def test_web_server_is_guarded_and_no_service_can_get_rights():
    """Dagster's own web server, which executes what any page asks, is started by the guard."""
    services = loaded(DEPLOY / "compose.yaml")["services"]
    assert services["web"]["command"][:3] == ["python", "-m", "vllm_wheels.defs.web"]
    for name in ("code", "web", "daemon"):
        assert (services[name]["cap_drop"], services[name]["security_opt"]) == (["ALL"], ["no-new-privileges:true"])


def test_workers_share_a_bucket_and_no_folder():
    """Artifacts and logs go to a bucket, whose keys come from the environment; only workers reach an engine."""
    services = loaded(DEPLOY / "workers/compose.yaml")["services"]
    given = services["worker"]["environment"]
    assert json.loads(given["VLLM_WHEELS_STORE__REMOTES"])["bucket"]["push"] is True
    assert given["VLLM_WHEELS_WORKERS__ENGINE"] == "celery"
    for variable in ("VLLM_WHEELS_STORE__TRUSTED_KEYS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert given[variable].startswith("${")
    reaching = [name for name, service in services.items() if "docker.sock" in str(service.get("volumes"))]
    assert reaching == ["worker"]


def test_cluster_shares_a_bucket_and_no_volume():
    """Each step is a pod of its own, with a disk that ends with it; artifacts and logs go to the bucket."""
    values = loaded(DEPLOY / "kubernetes/values.yaml")
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    given = {each["name"]: each["value"] for each in deployment["env"]}
    assert given["VLLM_WHEELS_WORKERS__ENGINE"] == "kubernetes"
    assert json.loads(given["VLLM_WHEELS_STORE__REMOTES"])["bucket"]["push"] is True
    assert [set(volume) for volume in deployment["volumes"]] == [{"name", "secret"}]
    assert values["computeLogManager"]["type"] == "S3ComputeLogManager"


@pytest.fixture
def postgres(monkeypatch) -> Iterator[int]:
    """A PostgreSQL of the test's own."""
    with servers.postgresql() as port:
        values = {"HOST": "127.0.0.1", "USER": "dagster", "PASSWORD": "unused", "DB": "dagster"}
        for name, value in values.items():
            monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", value)
        yield port


@pytest.fixture
def redis(tmp_path) -> Iterator[int]:
    """Port of a Redis of the test's own."""
    with servers.redis(tmp_path) as url:
        yield int(url.rpartition(":")[2])


def objects_in(port: int) -> int | None:
    """How many objects a Redis holds; None while it does not answer."""
    asked = ["redis-cli", "-p", str(port), "dbsize"]
    answer = subprocess.run(asked, check=False, capture_output=True, text=True)
    return int(answer.stdout) if answer.stdout.strip().isdigit() else None


def services_home(folder: Path, port: int) -> Path:
    """DAGSTER_HOME with deploy's dagster.yaml, led to the database of the test."""
    configuration = loaded(DEPLOY / "dagster.yaml")
    configuration["storage"]["postgres"]["postgres_db"]["port"] = port
    path = folder / "home"
    path.mkdir()
    (path / "dagster.yaml").write_text(json.dumps(configuration))
    return path


@pytest.mark.servers
def test_runs_and_events_are_kept_in_postgresql(postgres, settings_environment, tmp_path, monkeypatch):
    """With the services' dagster.yaml a run is recorded in PostgreSQL, and read back from there."""
    monkeypatch.setenv("DAGSTER_HOME", str(services_home(tmp_path, postgres)))
    place = Workplace()
    assert "postgres" in type(place.instance.event_log_storage).__name__.lower()
    place.materialize(["source"])
    query = ["psql", "-h", "127.0.0.1", "-p", str(postgres), "-U", "dagster", "-Atc", "select count(*) from event_logs"]
    assert int(subprocess.run(query, check=True, capture_output=True, text=True).stdout) > 5


@pytest.mark.servers
def test_daemon_launches_two_runs_on_postgresql(postgres, settings_environment, tmp_path, monkeypatch):
    """The daemon has the code location start two runs, on one PostgreSQL."""
    monkeypatch.setenv("DAGSTER_HOME", str(services_home(tmp_path, postgres)))
    with running_ui(tmp_path) as ui:
        partitions.register(home.instance(Workplace().settings), "0.16.0", "3.11")
        targets = [Target(release=release, python="3.11") for release in ("0.32.0", "0.16.0")]
        runs = [ui.launch("metadata/avx512", target.partition) for target in targets]
        for run in runs:
            until(lambda run=run: ui.status(run) in {"SUCCESS", "FAILURE"}, RUN_SECONDS, "a run to end")
        assert [ui.status(run) for run in runs] == ["SUCCESS", "SUCCESS"]


@pytest.mark.servers
def test_second_machine_compiles_from_the_shared_cache(redis, settings_environment, tmp_path, monkeypatch):
    """Machines share one Redis: what one compiled another does not compile again."""
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__CACHE_REMOTE", f"redis://127.0.0.1:{redis}")
    state = tmp_path / "state"
    monkeypatch.setenv("VLLM_WHEELS_STATE_FOLDER", str(state))
    counts = []
    for _machine in ("one", "another"):
        # As deploy/ has it, every machine has its folders at the same place.
        shutil.rmtree(state, ignore_errors=True)
        place = Workplace()
        place.materialize(["wheel/avx512"])
        (artifact,) = place.builds.store.artifacts("compiled")
        counts.append(artifact.details["ccache"])
    assert counts[0]["hits"] == counts[1]["misses"] == 0
    assert counts[1]["hits"] == counts[0]["misses"] > 0
