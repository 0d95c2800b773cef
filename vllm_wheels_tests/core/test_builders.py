"""Where compilers run: on this host with a checked compiler, or in containers that never outlive their purpose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vllm_wheels.core.builders import network
from vllm_wheels.core.builders.choose import choose, kind
from vllm_wheels.core.builders.container import lines, status
from vllm_wheels.core.builders.docker_engine import OWNER, engine, sweep
from vllm_wheels.core.builders.local import LocalBuilder
from vllm_wheels.core.engine.builder import Command, Mount
from vllm_wheels.core.errors import (
    CompilerError,
    EngineUnreachableError,
    MachineError,
    StepTimeoutError,
    UnsupportedPythonError,
)
from vllm_wheels.core.host.ownership import owner
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings

COMPILER = """#!/bin/sh
case "$*" in
*-dumpfullversion*) echo {version} ;;
*--version*) echo "g++ (Test {version}) {version}" ;;
*numa.h*) exit {numa} ;;
esac
"""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """An empty folder that is all of PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    return folder


@pytest.fixture
def no_engine(monkeypatch, tmp_path) -> None:
    """DOCKER_HOST names a socket where nobody listens."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/closed.sock")


@pytest.fixture
def containers(tmp_path_factory):
    """The container builder over the Debian image, which is made if it is not there yet."""
    settings = Settings(state_folder=tmp_path_factory.mktemp("state"), builder={"kind": "container", "image": "debian"})
    return choose(settings, Runner(), lambda _: None)


def put_compiler(folder: Path, name: str, version: str, *, numa: int = 0) -> Path:
    program = folder / name
    program.write_text(COMPILER.format(version=version, numa=numa))
    program.chmod(0o755)
    return program


def shell(text: str, *, cwd: str = "/", mounts: tuple[Mount, ...] = (), network: bool = False, **env: str) -> Command:
    return Command(argv=["/bin/sh", "-c", text], env=env, cwd=cwd, mounts=mounts, network=network)


def wait_until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.usefixtures("programs")
def test_host_without_compiler_is_an_error_with_a_remedy():
    """On a host without g++ the build says so before anything is fetched or compiled."""
    with pytest.raises(CompilerError, match=r"there is no C\+\+ compiler") as caught:
        LocalBuilder().identity()
    assert "vllm-wheels set-up" in caught.value.remedy


def test_too_old_compiler_is_an_error_with_both_versions(programs):
    """g++ 12.2 is refused, because it drops instruction sets in silence."""
    put_compiler(programs, "g++", "12.2.0")
    with pytest.raises(CompilerError, match=r"is g\+\+ 12\.2\.0") as caught:
        LocalBuilder().identity()
    assert "12.3" in caught.value.why


def test_newest_compiler_of_several_is_taken(programs):
    """With g++ 12 as the default and g++-13 beside it, the newer one compiles."""
    put_compiler(programs, "g++", "12.2.0")
    newer = put_compiler(programs, "g++-13", "13.3.0")
    assert LocalBuilder().compiler().cxx == (str(newer),)


def test_cxx_wins_over_newer_compilers(programs, monkeypatch):
    """Whoever sets CXX gets that compiler, options and all, with the C compiler beside it."""
    put_compiler(programs, "g++-14", "14.2.0")
    chosen = put_compiler(programs, "my-g++", "13.1.0")
    monkeypatch.setenv("CXX", "my-g++ -m64")
    compiler = LocalBuilder().compiler()
    assert compiler.cxx == (str(chosen), "-m64")
    assert compiler.cc == ("my-gcc", "-m64")


def test_cxx_that_is_not_there_is_an_error(programs, monkeypatch):
    """A mistyped CXX is not replaced by some other compiler."""
    put_compiler(programs, "g++-14", "14.2.0")
    monkeypatch.setenv("CXX", "g++-41")
    with pytest.raises(CompilerError, match=r"CXX=g\+\+-41"):
        LocalBuilder().identity()


def test_missing_numa_headers_are_an_error(programs):
    """A host without libnuma's headers is told which package has them."""
    put_compiler(programs, "g++", "13.1.0", numa=1)
    with pytest.raises(MachineError, match="libnuma") as caught:
        LocalBuilder().identity()
    assert "numa" in caught.value.remedy


def test_identity_changes_with_the_compiler(programs):
    """An updated compiler is another builder, so that what the old one compiled is not taken for its work."""
    put_compiler(programs, "g++", "13.1.0")
    before = LocalBuilder().identity()
    put_compiler(programs, "g++", "13.2.0")
    assert LocalBuilder().identity() != before
    assert before["compiler"] == "g++ (Test 13.1.0) 13.1.0"


def test_own_python_is_found_below_the_virtual_environment():
    """Extensions are built with the interpreter that a virtual environment stands on, whose packages are not seen."""
    path = LocalBuilder().python(PYTHON)
    shown = subprocess.run(
        [path, "-c", "import sys; print(sys.prefix == sys.base_prefix)"], capture_output=True, check=True
    )
    assert shown.stdout == b"True\n"


def test_python_that_is_not_there_is_an_error():
    """A Python that the host lacks is named, with what to do."""
    with pytest.raises(UnsupportedPythonError, match=r"no Python 3\.99") as caught:
        LocalBuilder().python("3.99")
    assert "uv python install 3.99" in caught.value.remedy


def test_local_command_sees_the_sources_of_its_mounts(tmp_path, programs):
    """Places of mounts are replaced in arguments, environment and folder, the longest first, and only whole names."""
    put_compiler(programs, "g++", "13.1.0")
    (tmp_path / "a").mkdir()
    mounts = (
        Mount(source=tmp_path / "a", place="/vllm-wheels/env"),
        Mount(source=tmp_path / "b", place="/vllm-wheels/env/deep"),
    )
    heard: list[str] = []
    text = 'echo "$PWD:$GIVEN:/vllm-wheels/env/deep/x:/vllm-wheels/environment"'
    command = shell(text, cwd="/vllm-wheels/env", mounts=mounts, GIVEN="-I/vllm-wheels/env/include")
    LocalBuilder(unguarded=True).run(command, on_line=heard.append)
    a, b = tmp_path / "a", tmp_path / "b"
    assert heard == [f"{a}:-I{a}/include:{b}/x:/vllm-wheels/environment"]


def test_folder_of_all_places_is_what_their_sources_share(tmp_path, programs):
    """Compiler caches are told the folder below which it does not matter where a build lies."""
    put_compiler(programs, "g++", "13.1.0")
    mounts = tuple(Mount(source=tmp_path / name, place=f"/vllm-wheels/{name}") for name in ("build", "env"))
    heard: list[str] = []
    LocalBuilder(unguarded=True).run(shell('echo "$BASE"', mounts=mounts, BASE="/vllm-wheels"), on_line=heard.append)
    assert heard == [str(tmp_path)]


def test_local_command_does_not_inherit_compiler_flags(programs, monkeypatch):
    """A CXXFLAGS in the user's shell does not reach a compile, because no key would know of it."""
    compiler = put_compiler(programs, "g++", "13.1.0")
    monkeypatch.setenv("CXXFLAGS", "-O0")
    heard: list[str] = []
    LocalBuilder(unguarded=True).run(shell('echo "$CXXFLAGS $CXX"'), on_line=heard.append)
    assert heard == [f" {compiler}"]


def test_local_command_that_is_not_there_is_an_error(programs):
    """A missing program ends in one line, not in a traceback."""
    put_compiler(programs, "g++", "13.1.0")
    with pytest.raises(MachineError, match="no-such-program cannot be started"):
        LocalBuilder(unguarded=True).run(Command(argv=["no-such-program"], env={}, cwd="/", mounts=()))


def test_index_variables_reach_commands_with_network(monkeypatch, tmp_path):
    """A container that may reach the network asks the user's own index, with the user's certificates and folders."""
    bundle, wheels = tmp_path / "bundle.pem", tmp_path / "wheels"
    bundle.touch()
    wheels.mkdir()
    for name in (*network.CERTIFICATES, *network.FIND_LINKS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{wheels} http://127.0.0.1:1/wheels")
    monkeypatch.setenv("UV_CACHE_DIR", "/somewhere")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    environment, mounts = network.shown()
    assert environment["PIP_INDEX_URL"] == "http://127.0.0.1:1/simple"
    assert environment["PIP_FIND_LINKS"] == "/vllm-wheels/find-links/0 http://127.0.0.1:1/wheels"
    assert environment["SSL_CERT_FILE"] == "/vllm-wheels/certificates.pem"
    assert "UV_CACHE_DIR" not in environment
    assert [(mount.source, mount.writable) for mount in mounts] == [(wheels, False), (bundle, False)]


@pytest.mark.usefixtures("no_engine")
def test_closed_engine_is_an_error_with_a_remedy():
    """An engine that does not answer is named, with what to do."""
    with pytest.raises(EngineUnreachableError) as caught, engine():
        pass
    assert "DOCKER_HOST" in caught.value.remedy


@pytest.mark.usefixtures("no_engine")
def test_local_is_chosen_where_no_engine_answers(programs, tmp_path):
    """Without an engine, a good compiler of the host is taken, and that is said in one line."""
    put_compiler(programs, "g++", "13.1.0")
    said: list[str] = []
    builder = choose(Settings(state_folder=tmp_path, builder={"unguarded": True}), Runner(), said.append)
    assert builder.name == "local"
    assert said == ["compiling on this host with g++ (Test 13.1.0) 13.1.0 (no container engine answers)"]


@pytest.mark.usefixtures("no_engine")
def test_neither_engine_nor_compiler_is_an_error_with_both_reasons(programs, tmp_path):
    """With no engine and a compiler that will not do, both are named."""
    put_compiler(programs, "g++", "9.1.0")
    with pytest.raises(CompilerError, match="nothing to compile with") as caught:
        kind(Settings(state_folder=tmp_path), Runner())
    assert "closed.sock" in caught.value.why or "No such file" in caught.value.why
    assert "9.1.0" in caught.value.why
    assert "vllm-wheels set-up" in caught.value.remedy


@pytest.mark.usefixtures("no_engine")
def test_containers_asked_for_are_not_replaced_by_the_host(programs, tmp_path):
    """builder.kind = container without an engine is an error, even where the host could compile."""
    put_compiler(programs, "g++", "13.1.0")
    with pytest.raises(EngineUnreachableError):
        choose(Settings(state_folder=tmp_path, builder={"kind": "container"}), Runner(), lambda _: None)


def test_lines_are_whole_however_they_come_in():
    """Output cut in the middle of a line or of a character comes out as it was written."""
    assert list(lines([b"on", b"e\ntw\xc3", b"\xb6\n\nlast"])) == ["one", "twö", "", "last"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"ExitCode": 0, "OOMKilled": False}, 0),
        ({"ExitCode": 3, "OOMKilled": False}, 3),
        ({"ExitCode": 137, "OOMKilled": False}, -9),
        ({"ExitCode": 1, "OOMKilled": True}, -9),
        ({"ExitCode": 0, "OOMKilled": True}, 0),
        ({"ExitCode": 139, "OOMKilled": False}, -11),
        ({"ExitCode": 255, "OOMKilled": False}, 255),
    ],
)
def test_death_for_lack_of_memory_is_visible(state, expected):
    """A container that the kernel killed has status -9, one that failed by itself its own."""
    assert status(state) == expected


def test_owner_of_a_process_is_its_own():
    """Two processes never have the same owner text, even if one gets the other's number later."""
    assert owner(os.getpid()) == owner(os.getpid())
    assert owner(os.getpid()) != owner(os.getppid())


@pytest.mark.container
def test_container_compiles_without_network(containers, tmp_path):
    """A program compiles in the builder image, sees only the loopback device, and its output comes line by line."""
    (tmp_path / "a.cpp").write_text('#include <numa.h>\n#include <cstdio>\nint main() { std::puts("compiled"); }\n')
    heard: list[str] = []
    mount = Mount(source=tmp_path, place="/vllm-wheels/source", writable=True)
    text = "g++ -o a a.cpp -lnuma && ./a && ls /sys/class/net"
    log = tmp_path / "log"
    finished = containers.run(
        shell(text, cwd="/vllm-wheels/source", mounts=(mount,)), log=log, on_line=heard.append, timeout_seconds=120
    )
    assert (finished.status, heard) == (0, ["compiled", "lo"])
    assert log.read_text() == "compiled\nlo\n"
    assert (tmp_path / "a").stat().st_uid == os.getuid()


@pytest.mark.container
def test_mounts_are_read_only_unless_writable(containers, tmp_path):
    """A compile cannot change what it was only given to read."""
    mount = Mount(source=tmp_path, place="/vllm-wheels/source")
    finished = containers.run(shell("touch /vllm-wheels/source/x", mounts=(mount,)), timeout_seconds=60)
    assert finished.status != 0
    assert not list(tmp_path.iterdir())


@pytest.mark.container
def test_errors_and_output_keep_their_order(containers):
    """The tail of a failed command shows errors where they happened."""
    finished = containers.run(shell("echo 1; echo 2 >&2; echo 3; exit 4"), timeout_seconds=60)
    assert (finished.tail, finished.status) == (("1", "2", "3"), 4)


@pytest.mark.container
def test_container_past_its_limit_is_ended(containers):
    """A command that hangs is ended at its limit, container and all."""
    with pytest.raises(StepTimeoutError, match="did not finish"):
        containers.run(shell("sleep 300"), timeout_seconds=1)
    with engine() as client:
        mine = client.containers.list(all=True, filters={"label": f"{OWNER}={owner(os.getpid())}"})
    assert mine == []


@pytest.mark.container
def test_mount_that_is_not_there_is_an_error(containers, tmp_path):
    """A missing folder ends in one line, and is not made by the engine."""
    mount = Mount(source=tmp_path / "missing", place="/vllm-wheels/source")
    with pytest.raises(MachineError, match="cannot run"):
        containers.run(shell("true", mounts=(mount,)), timeout_seconds=60)
    assert not (tmp_path / "missing").exists()


@pytest.mark.container
def test_python_of_the_image_is_found(containers):
    """The image's Python 3.11 has its headers; another version is refused with those that there are."""
    assert containers.python("3.11") == "/usr/bin/python3.11"
    with pytest.raises(UnsupportedPythonError) as caught:
        containers.python("3.9")
    assert "3.11" in caught.value.why


@pytest.mark.container
def test_identity_of_the_image_is_its_packages(containers):
    """The same packages are the same builder, whatever the image is called."""
    identity = containers.identity()
    assert identity["kind"] == "container"
    assert len(identity["packages"]) == 64
    assert identity == containers.identity()


@pytest.mark.container
@pytest.mark.usefixtures("containers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_container_outlives_its_owner(tmp_path, number):
    """Ctrl-C removes the container at once; what kill -9 leaves is removed by the next run."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from vllm_wheels.core.engine.builder import Command\n"
        "from vllm_wheels.core.builders.container import ContainerBuilder\n"
        "from vllm_wheels.core.builders.image import ensure_image\n"
        "from vllm_wheels.core.settings import Settings\n"
        "settings = Settings(state_folder=Path(sys.argv[1]), builder={'image': 'debian'})\n"
        "image = ensure_image(settings, print)\n"
        "builder = ContainerBuilder(image=image, notes=Path(sys.argv[1]), echo=lambda line: print(line, flush=True))\n"
        "builder.run(Command(argv=['sh', '-c', 'echo up; sleep 300'], env={}, cwd='/', mounts=()))\n"
    )
    with subprocess.Popen(
        [sys.executable, program, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        label = f"{OWNER}={owner(child.pid)}"
        child.send_signal(number)
        assert child.wait(240) != 0
    with engine() as client:
        if number == signal.SIGKILL:
            assert sweep(client) >= 1
        wait_until(lambda: not client.containers.list(all=True, filters={"label": label}))


@pytest.mark.container
@pytest.mark.usefixtures("tmp_path")
def test_sweeping_spares_containers_of_the_living(containers):
    """Another build that is under way keeps its container."""
    with engine() as client:
        container = client.containers.create(containers.image.id, ["true"], labels={OWNER: owner(os.getpid())})
        try:
            sweep(client)
            container.reload()
            assert container.status == "created"
        finally:
            container.remove(force=True)
