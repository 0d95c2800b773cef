# ruff: noqa: PTH123, PTH101, PTH108, PTH116, PTH110, PTH208, S103, SIM115, T201
"""Hostile code: looks for a canary wherever a process can look, and prints what it found and could do as JSON.

It runs in sandboxes, in containers and without either, so it needs nothing but Python. Arguments: the canary, split by
a blank so that its own command line does not hold it; files to read; a port on loopback.
"""

import json
import os
import socket
import stat
import sys

CANARY = "".join(sys.argv[1].split(" ")).encode()
FILES = [name for name in sys.argv[2].split(":") if name]
PORT = int(sys.argv[3])
ENGINE = "/var/run/docker.sock"
MOST = 1 << 20


def holds(path):
    try:
        with open(path, "rb") as stream:
            return CANARY in stream.read(MOST)
    except OSError:
        return False


def processes():
    for number in os.listdir("/proc"):
        if number.isdigit():
            yield number


def of_processes():
    for number in processes():
        for name in ("environ", "cmdline"):
            if holds(f"/proc/{number}/{name}"):
                yield f"/proc/PID/{name}"
        try:
            descriptors = os.listdir(f"/proc/{number}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            path = f"/proc/{number}/fd/{descriptor}"
            # A pipe would keep us waiting; a file in memory is a regular one.
            try:
                regular = stat.S_ISREG(os.stat(path).st_mode)
            except OSError:
                continue
            if regular and holds(path):
                yield "/proc/PID/fd"


def connects(family, address):
    with socket.socket(family) as probe:
        probe.settimeout(2)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True


def left():
    """What would outlast us, were it to succeed: a set-uid copy of a shell, a device of the host."""
    for name in ("shell", "disk"):
        if os.path.exists(name):
            os.unlink(name)
    try:
        os.mknod("disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
        yield "made a block device"
    except OSError:
        pass
    with open("shell", "wb"):
        pass
    os.chmod("shell", 0o4755)


found = sorted(
    {
        *(f"variable {name}" for name, value in os.environ.items() if CANARY.decode() in value),
        *of_processes(),
        *(name for name in FILES if holds(name)),
        *(["a port on loopback"] if connects(socket.AF_INET, ("127.0.0.1", PORT)) else []),
        *(["the container engine"] if connects(socket.AF_UNIX, ENGINE) else []),
        *left(),
    }
)
rights = [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "NoNewPrivs"))]
try:
    open("/usr/lib/of-an-attacker", "w").close()
    os.unlink("/usr/lib/of-an-attacker")
    found.append("wrote below /usr")
except OSError:
    pass
print("found: " + json.dumps({"found": found, "user": os.getuid(), "rights": rights}))
