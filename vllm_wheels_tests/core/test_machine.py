"""What the machine has, as the files of the kernel tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_wheels.core.errors import DiskSpaceError, MemoryShortageError
from vllm_wheels.core.host import machine
from vllm_wheels.core.settings import Settings


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """The files of a machine with eight cores and 32 GB, in no control group."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    write(tmp_path / "proc/meminfo", "MemTotal: 40000000 kB\nMemAvailable: 32000000 kB\nHugePages_Total: 0\n")
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def test_every_core_gets_a_job_where_memory_suffices(bare):
    """With eight cores and 32 GB, eight files compile at the same time."""
    assert machine.jobs(Settings(), root=bare) == 8


def test_jobs_are_fewer_where_memory_is_short(bare):
    """With 5 GB available only two jobs of 2 GB fit, however many cores there are."""
    write(bare / "proc/meminfo", "MemAvailable: 5000000 kB\n")
    assert machine.jobs(Settings(), root=bare) == 2


def test_there_is_always_one_job(bare):
    """A machine with next to no memory still gets a job; whether to build at all is another question."""
    write(bare / "proc/meminfo", "MemAvailable: 100 kB\n")
    assert machine.jobs(Settings(), root=bare) == 1


def test_max_jobs_overrides_the_machine(bare):
    """builder.max_jobs is taken as it is."""
    assert machine.jobs(Settings(builder={"max_jobs": 31}), root=bare) == 31


def test_quota_of_a_control_group_counts_as_cores(bare):
    """A container with --cpus 2.5 allows two jobs (version 2 of control groups)."""
    write(bare / "proc/self/cgroup", "0::/user.slice/build\n")
    write(bare / "sys/fs/cgroup/user.slice/cpu.max", "max 100000\n")
    write(bare / "sys/fs/cgroup/user.slice/build/cpu.max", "250000 100000\n")
    assert machine.cores(root=bare) == 2


def test_quota_of_an_old_control_group_counts_as_cores(bare):
    """A container with --cpus 3 allows three jobs (version 1 of control groups)."""
    write(bare / "proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n0::/\n")
    write(bare / "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "300000\n")
    write(bare / "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n")
    assert machine.cores(root=bare) == 3


def test_memory_limit_of_a_parent_group_counts(bare):
    """A limit on an outer control group holds for the inner ones, and read files do not count as used."""
    write(bare / "proc/self/cgroup", "0::/outer/inner\n")
    write(bare / "sys/fs/cgroup/outer/memory.max", "4000000000\n")
    write(bare / "sys/fs/cgroup/outer/memory.current", "3000000000\n")
    write(bare / "sys/fs/cgroup/outer/memory.stat", "anon 1000000000\ninactive_file 2000000000\n")
    write(bare / "sys/fs/cgroup/outer/inner/memory.max", "max\n")
    assert machine.memory_available(root=bare) == pytest.approx(3.0)


def test_memory_limit_of_an_old_group_is_found_from_within_a_container(bare):
    """In a container of version 1 the group's path is the host's; its limit stands at the top of the hierarchy."""
    write(bare / "proc/self/cgroup", "4:memory:/docker/not-visible-here\n")
    write(bare / "sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000000\n")
    write(bare / "sys/fs/cgroup/memory/memory.usage_in_bytes", "500000000\n")
    assert machine.memory_available(root=bare) == pytest.approx(1.5)


def test_this_machine_has_cores_and_memory():
    """The real files of this machine are understood."""
    assert machine.cores() >= 1
    assert machine.memory_available() > 0


def test_full_disk_is_an_error_with_both_figures(tmp_path):
    """A build that needs more than the disk has says how much is needed and how much there is."""
    with pytest.raises(DiskSpaceError) as caught:
        machine.require_room(tmp_path / "not" / "yet", 1e9)
    assert "1000000000.0 GB are needed" in caught.value.why
    assert "GB are free" in caught.value.why


def test_room_for_little_is_there(tmp_path):
    """A folder that does not exist yet is judged by the disk it will be on."""
    machine.require_room(tmp_path / "not" / "yet", 0.001)
    assert not (tmp_path / "not").exists()


def test_little_memory_is_an_error_with_both_figures(bare):
    """A build that needs more memory than there is says how much is needed and how much there is."""
    write(bare / "proc/meminfo", "MemAvailable: 1000000 kB\n")
    with pytest.raises(MemoryShortageError) as caught:
        machine.require_memory(root=bare)
    assert caught.value.why == "3.0 GB are needed, 1.0 GB are available"


@pytest.mark.parametrize(
    ("release", "install"),
    [
        ('ID=debian\nVERSION_ID="12"\n', None),
        ('ID=debian\nVERSION_ID="13"\n', "apt-get install -y --no-install-recommends g++-14 libnuma-dev"),
        ("ID=fedora\nVERSION_ID=42\n", "dnf install -y gcc-c++ numactl-devel"),
        ('ID="rocky"\nID_LIKE="rhel fedora"\n', "dnf install -y gcc-toolset-14-gcc-c++ numactl-devel"),
        ("ID=arch\n", "pacman -S --needed gcc numactl"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "zypper install -y gcc-c++ libnuma-devel"),
        ("ID=alpine\n", None),
        ("ID=nixos\n", None),
    ],
)
def test_compiler_is_named_as_the_distribution_names_it(tmp_path, release, install):
    """Whoever lacks a compiler is told the package of this distribution, and none where it offers none."""
    write(tmp_path / "etc/os-release", release)
    assert machine.distribution(root=tmp_path).install_compiler() == install
