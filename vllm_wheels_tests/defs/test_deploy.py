"""What deploy/ says holds: its files are valid; the code location runs on PostgreSQL, in containers, on one cache."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from vllm_wheels.core.target import Target
from vllm_wheels.defs import home, partitions
from vllm_wheels_tests.defs.running_ui import running_ui, until
from vllm_wheels_tests.defs.workplace import Workplace

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))
"""Where Debian's package puts what is not on PATH, below the version's number."""

RUN_SECONDS = 300


def loaded(path: Path):
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("path", [ROOT / "vllm_wheels/defs/dagster.yaml", DEPLOY / "dagster.yaml"], ids=["one", "many"])
def test_installed_dagster_takes_every_key_of_dagster_yaml(path, tmp_path):
    """Neither file holds a key that the installed Dagster does not know."""
    shutil.copy(path, tmp_path / "dagster.yaml")
    found, _ = dagster_instance_config(str(tmp_path))
    assert found["run_monitoring"]["free_slots_after_run_end_seconds"] == 60
    assert found["concurrency"]["pools"]["default_limit"] == 1


def test_compose_file_names_no_secret_and_publishes_on_loopback_only():
    """Passwords come from the environment, and only this machine reaches the web UI."""
    services = loaded(DEPLOY / "compose.yaml")["services"]
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("${")
    assert services["web"]["ports"] == ["127.0.0.1:3000:3000"]
    assert [name for name, service in services.items() if "ports" in service] == ["web"]


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


def test_cluster_mounts_the_claim_that_it_makes():
    """The Helm values mount the volume that artifacts.yaml claims, writable by several pods."""
    claim = loaded(DEPLOY / "kubernetes/artifacts.yaml")
    (deployment,) = loaded(DEPLOY / "kubernetes/values.yaml")["dagster-user-deployments"]["deployments"]
    assert deployment["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def process(*argv: str) -> Iterator[subprocess.Popen]:
    started = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(30)


@pytest.fixture
def postgres(monkeypatch) -> Iterator[int]:
    """A PostgreSQL of the test's own."""
    if not (POSTGRES / "initdb").exists():
        pytest.skip("there is no PostgreSQL (apt-get install postgresql)")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        shutil.chown(folder, "postgres")
        user = ("runuser", "-u", "postgres", "--")
        data = f"{folder}/data"
        subprocess.run([*user, str(POSTGRES / "initdb"), "-D", data, "-U", "dagster", "-A", "trust"], check=True)
        where = ("-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1")
        server = (str(POSTGRES / "postgres"), "-D", data, *where)
        with process(*user, *server):
            ready = [str(POSTGRES / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
            until(lambda: subprocess.run(ready, check=False).returncode == 0, 30, "PostgreSQL")
            reach = ("-h", "127.0.0.1", "-p", str(port), "-U", "dagster")
            subprocess.run([str(POSTGRES / "createdb"), *reach, "dagster"], check=True)
            values = {"HOST": "127.0.0.1", "USER": "dagster", "PASSWORD": "unused", "DB": "dagster"}
            for name, value in values.items():
                monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", value)
            yield port


@pytest.fixture
def redis(tmp_path) -> Iterator[int]:
    """Port of a Redis of the test's own."""
    if not shutil.which("redis-server"):
        pytest.skip("there is no Redis (apt-get install redis-server)")
    port = free_port()
    with process("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)):
        until(lambda: objects_in(port) == 0, 30, "Redis")
        yield port


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
        partitions.register(home.instance(Workplace().settings), "0.16.0")
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
