"""What a bare machine lacks, and who is told what to type."""

from __future__ import annotations

import time

import pytest

from vllm_wheels.core.errors import EngineUnreachableError, MachineError
from vllm_wheels.core.host import machine
from vllm_wheels.core.operations import set_up as setup
from vllm_wheels.core.settings import Settings

DEBIAN = 'ID=debian\nVERSION_ID="12"\n'


@pytest.fixture
def no_engine(monkeypatch, tmp_path) -> None:
    """DOCKER_HOST names a socket where nobody listens."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/closed.sock")


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A Debian without any of the programs, as a root folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "ADMINISTRATION", ())
    return root(tmp_path, DEBIAN)


def root(tmp_path, release):
    folder = tmp_path / "root"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/os-release").write_text(release)
    return folder


@pytest.mark.usefixtures("no_engine")
def test_bare_machine_lacks_packages_and_engine(bare, tmp_path):
    """A bare Debian gets its package lists, the packages, and an engine without systemd, in that order."""
    lists, packages, engine = setup.missing(Settings(state_folder=tmp_path), root=bare)
    assert lists.argv[:2] == ("apt-get", "update")
    assert {"docker.io", "debootstrap", "git", "dpkg-dev"} < set(packages.argv)
    assert engine.argv[0] == "start-stop-daemon"
    assert engine.argv[-2:] == ("--iptables=false", "--bridge=none")
    assert str(tmp_path / "dockerd.log") in engine.argv


@pytest.mark.usefixtures("no_engine")
def test_engine_is_started_by_systemd_where_it_runs(bare, tmp_path):
    """On a machine with systemd the engine is a service like any other."""
    (bare / "run/systemd/system").mkdir(parents=True)
    assert setup.missing(Settings(state_folder=tmp_path), root=bare)[-1].argv == ("systemctl", "start", "docker")


@pytest.mark.usefixtures("no_engine")
def test_only_what_is_missing_is_installed(bare, tmp_path):
    """A program that is there already, from wherever, is not installed again."""
    for name in ("dockerd", "git"):
        (tmp_path / name).touch(0o755)
    packages = setup.missing(Settings(state_folder=tmp_path), root=bare)[1]
    assert "debootstrap" in packages.argv
    assert not {"docker.io", "git"} & set(packages.argv)


@pytest.mark.usefixtures("no_engine")
def test_other_distributions_are_told_their_own_command(tmp_path):
    """On Fedora nothing is installed behind the user's back; the dnf command is shown."""
    with pytest.raises(MachineError, match="fedora") as caught:
        setup.missing(Settings(state_folder=tmp_path), root=root(tmp_path, "ID=fedora\n"))
    assert "dnf install -y" in caught.value.remedy


@pytest.mark.usefixtures("no_engine", "bare")
def test_user_without_root_is_told_the_commands(monkeypatch, tmp_path):
    """Whoever is not root gets the commands to run with sudo."""
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(
        setup, "missing", lambda _: [setup.Item(title="packages", argv=("apt-get", "x"), present=False)]
    )
    with pytest.raises(MachineError, match="needs root") as caught:
        setup.set_up(Settings(state_folder=tmp_path), lambda _: None)
    assert caught.value.remedy == "sudo sh -c 'apt-get x'"


@pytest.mark.usefixtures("no_engine")
def test_foreign_engine_is_not_started(monkeypatch, tmp_path):
    """Where DOCKER_HOST names an engine that is down, set-up does not start another one that would never be asked."""
    item = setup.Item(title="engine", argv=("true",), present=False, starts=True)
    monkeypatch.setattr(setup, "missing", lambda _: [item])
    with pytest.raises(EngineUnreachableError, match=r"closed\.sock"):
        setup.set_up(Settings(state_folder=tmp_path), lambda _: None)


def test_each_command_is_said_before_it_runs(monkeypatch, tmp_path):
    """A user sees what is about to be done; a failure names the command and its last words."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    item = setup.Item(title="packages git", argv=("sh", "-c", "echo E: no such package; exit 100"), present=False)
    monkeypatch.setattr(setup, "missing", lambda _: [item])
    said: list[str] = []
    with pytest.raises(MachineError, match="packages git cannot be set up") as caught:
        setup.set_up(Settings(state_folder=tmp_path / "state"), said.append)
    assert said == ["setting up: packages git: sh -c 'echo E: no such package; exit 100'"]
    assert "E: no such package" in caught.value.why


@pytest.mark.usefixtures("no_engine")
def test_engine_that_does_not_come_up_is_an_error_with_its_log(tmp_path):
    """An engine that was started and dies is not waited for longer than the limit; its last words are told."""
    log = tmp_path / "dockerd.log"
    log.write_text("starting up\nfailed to load a module\n")
    started = time.monotonic()
    with pytest.raises(EngineUnreachableError) as caught:
        setup.wait_for_engine(log=log, seconds=0.2)
    assert "failed to load a module" in caught.value.why
    assert time.monotonic() - started < 5


@pytest.mark.container
def test_nothing_is_done_on_a_machine_that_has_everything(tmp_path):
    """Set up twice is set up once."""
    said: list[str] = []
    setup.set_up(Settings(state_folder=tmp_path / "state"), said.append)
    assert len(said) == 1
    assert "nothing to set up" in said[0]
    assert not (tmp_path / "state").exists()


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("text", ["1\n", "999999999", "no number"], ids=["another program's", "nobody's", "garbage"])
def test_number_that_a_killed_engine_left_is_cleared_before_the_next_starts(bare, tmp_path, text):
    """A stale process number does not keep the engine from starting."""
    path = bare / "var/run/docker.pid"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    todo = [item.argv for item in setup.missing(Settings(state_folder=tmp_path), root=bare)]
    assert ("rm", "-f", str(path)) in todo
    path.unlink()
    assert not [item for item in setup.missing(Settings(state_folder=tmp_path), root=bare) if item.argv[0] == "rm"]
