"""The README's lines on a bare machine: a root made by debootstrap, with what its first line installs and no more."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from vllm_wheels.core.builders.debootstrap import ISOLATED, host_mirror
from vllm_wheels.core.host.machine import distribution
from vllm_wheels.core.host.processes import Runner
from vllm_wheels_tests.docs.pages import ROOT, Page
from vllm_wheels_tests.fixtures.releases import ONEDNN

pytestmark = pytest.mark.bare

SECONDS = 900
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHECKOUT = "srv/vllm-wheels"
ENTER = """
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    # What is shown of this machine cannot be changed from there.
    mount -o remount,bind,ro "$root$1"
    shift
done
shift
# Not chroot, in which the kernel makes no namespaces for sandboxes.
cd "$root"
mkdir -p .outside
pivot_root . .outside
cd /
umount --lazy /.outside
exec "$@"
"""

KEPT_BY_SUDO = "VLLM_WHEELS_* PIP_* SSL_CERT_FILE REQUESTS_CA_BUNDLE"
PERSON = "maintainer"
BY_ROOT, BY_USER = "by-root", "by-user"
"""As root, who needs no sudo, and as a user with sudo."""

SUITES = sorted({distribution().codename, "bookworm", "trixie"})

Typed = Callable[..., str]


def pip_settings() -> dict[str, str]:
    """The user's settings of pip, files of which the bare machine does not have, as variables."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found = re.findall(r"^(?:global|:env:\.?)\.?([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE)
    return {f"PIP_{name.replace('-', '_').upper()}": value for name, value in found}


def local_folders(settings: dict[str, str]) -> list[str]:
    """Folders of this machine that settings of pip name, with what lies beside them: pages of an index link there."""
    words = (word for value in settings.values() for word in value.split())
    paths = (Path(unquote(urlsplit(word).path)) for word in words if urlsplit(word).scheme in {"", "file"})
    folders = {path.parent for path in paths if path.is_absolute() and path.exists()}
    return sorted(str(folder) for folder in folders if not folder.is_relative_to("/etc/ssl") and folder != Path("/"))


def put_checkout(root: Path) -> None:
    """The files that git knows, as a clone has them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / CHECKOUT / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / CHECKOUT / name)


@pytest.fixture(scope="module", params=SUITES)
def root(request, tmp_path_factory) -> Path:
    """A bare system, which can reach what this machine reaches."""
    root = tmp_path_factory.mktemp("bare") / "root"
    mirror = host_mirror(Runner())
    assert mirror, "debootstrap takes packages from the mirror of this machine's apt"
    made = ["debootstrap", "--variant=minbase", request.param, str(root), mirror]
    done = subprocess.run([*ISOLATED, *made], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stdout[-2000:]
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    return root


@pytest.fixture(params=[BY_ROOT, BY_USER])
def typed(request, root) -> Typed:
    """Types a line on the bare machine, as one of those whom the README speaks to."""
    pip, by_user = pip_settings(), request.param == BY_USER

    def run(line: str, *, by_user: bool = by_user, **environment: str) -> str:
        # A copy of its own: what installs certificates there must not touch this machine's.
        bundle = root / CERTIFICATES.relative_to("/")
        bundle.parent.mkdir(parents=True, exist_ok=True)
        if CERTIFICATES.is_file():
            shutil.copyfile(CERTIFICATES, bundle)
        trusted = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), str(CERTIFICATES))
        shown = [*local_folders(pip), *(path for path in environment.get("SHOWN", "").split(":") if path)]
        words = ["sh", "-ec", f"cd /{CHECKOUT}; {line}"]
        words = ["su", "--preserve-environment", PERSON, "-c", shlex.join(words)] if by_user else words
        home = f"/home/{PERSON}" if by_user else "/root"
        done = subprocess.run(
            [*ISOLATED, "sh", "-ec", ENTER, "sh", str(root), *shown, "--", *words],
            env={"PATH": PROGRAMS, "HOME": home, "LANG": "C.UTF-8", **pip, **trusted, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    shutil.rmtree(root / CHECKOUT, ignore_errors=True)
    put_checkout(root)
    if by_user:
        add_user = f"apt-get update -qq && apt-get install -y -qq sudo && useradd --create-home {PERSON}"
        allow = f"printf '%s\\n' 'Defaults env_keep += \"{KEPT_BY_SUDO}\"' '{PERSON} ALL=(ALL) NOPASSWD: ALL'"
        run(f"{add_user}; {allow} > /etc/sudoers.d/{PERSON}; chown -R {PERSON} .", by_user=False)
    return run


def first_line() -> str:
    """What the README says is to be installed first."""
    (block, *_) = Page(ROOT / "README.md").below("Two commands")
    return "\n".join(line for line in block.text.splitlines() if "apt-get" in line)


@pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap needs root")
def test_readmes_lines_lead_from_a_bare_machine_to_a_wheel(request, root, typed, settings_environment, torch_folder):
    """I type what the README says, and get a wheel that was tried, and is mine; then the tests run."""
    sudo = "sudo " if BY_USER in request.node.name else ""
    torch_folder.chmod(0o755)  # pytest keeps its folders to root, and the user reads this one.
    typed(first_line() if sudo else first_line().replace("sudo ", ""), DEBIAN_FRONTEND="noninteractive")
    assert "vllm-wheels, version" in typed("./run --version")
    settings = {
        **settings_environment,
        "VLLM_WHEELS_STATE_FOLDER": f"/{CHECKOUT}/.vllm-wheels",
        "VLLM_WHEELS_OUTPUT_FOLDER": f"/{CHECKOUT}/wheels",
        "SHOWN": f"{torch_folder}:{ONEDNN}",
    }
    assert "make compiled baseline" in typed("./run plan --variant baseline", **settings)
    built = typed(f"{sudo}./run build --variant baseline --yes", **settings)
    assert "passed" in built
    assert "next: " in built
    (wheel,) = (root / CHECKOUT / "wheels").glob("*.whl")
    assert wheel.stat().st_uid == (root / CHECKOUT).stat().st_uid
    typed("./run clean --dry-run", **settings)
    assert "passed" in typed("./run test vllm_wheels_tests/test_rooms.py vllm_wheels_tests/core/test_wheel_name.py -q")
