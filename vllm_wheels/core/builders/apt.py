"""Takes source packages of a Debian suite from the host's own mirror, by an apt configuration beside the host's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from vllm_wheels.core.builders.debootstrap import host_mirror
from vllm_wheels.core.errors import MachineError, NetworkError, SourceError, StepTimeoutError
from vllm_wheels.core.host.commands import Download, Invocation
from vllm_wheels.core.host.files import write_atomically
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.texts import redacted

HELPER = "/usr/lib/apt/apt-helper"
PACKAGES = {"apt-get": "apt", HELPER: "apt", "dpkg-source": "dpkg-dev"}
"""Which Debian package has a tool."""

URI = re.compile(r"^'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+)(?: SHA256:(?P<sha256>[0-9a-f]{64}))?$")
"""A line that apt-get prints for ``--print-uris`` (apt-get(8))."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Where Debian's package of its archive keys puts them; a host without it trusts what its apt does."""

OTHER_SUITE = "set onednn.debian_suite to a suite that has it"

DOWNLOAD_SECONDS = 1800.0

ENVIRONMENT = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
"""Of all of Debian's tools here."""

CONFIGURATION = """\
Dir::State::Lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "{folder}/sources";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Retries "2";
Acquire::http::Timeout "{timeout:.0f}";
Acquire::https::Timeout "{timeout:.0f}";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""

SOURCE = """\
Types: deb-src
URIs: {mirror}
Suites: {suite}
Components: main
"""


@dataclass(frozen=True, kw_only=True)
class SourcePackage:
    """A source package: its version without epoch, such as ``3.7.2+ds-2``, and its files by apt's signed lists."""

    name: str
    version: str
    files: dict[str, Download]

    @property
    def control(self) -> str:
        """Name of the file that describes the others."""
        return next(name for name in self.files if name.endswith(".dsc"))


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite of Debian such as ``trixie``, as the host's mirror has it; apt's lists of it are kept in the folder."""

    name: str
    folder: Path
    timeout_seconds: float

    def find(self, package: str) -> SourcePackage:
        """The newest source package of that name.

        Raises:
            NetworkError: the mirror does not answer, or does not have the suite.
            SourceError: the suite has no such package, or the mirror lists it and does not have it.
            MachineError: apt is missing, or knows no mirror of Debian.
        """
        with self._locked():
            self._update()
            finished = self._apt("--print-uris", "--only-source", "source", package)
            listed = [match for line in finished.output.splitlines() if (match := URI.match(line.rstrip()))]
            found = {match["file"]: match for match in listed if match["sha256"]}
            control = next((name for name in found if name.endswith(".dsc")), None)
            if finished.status or control is None:
                what = f"there is no source package {package} in Debian {self.name}"
                raise SourceError(what, why=reason(finished), remedy=OTHER_SUITE)
            self._require_there(found[control])
        files = {
            name: Download(url=redacted(match["url"]), size=int(match["size"]), sha256=match["sha256"])
            for name, match in found.items()
        }
        version = control.removeprefix(f"{package}_").removesuffix(".dsc")
        return SourcePackage(name=package, version=version, files=files)

    def _require_there(self, control: re.Match[str]) -> None:
        """Fetches the small file that describes a package: mirrors of a part of Debian list more than they have."""
        configuration = ("-c", str(self.folder / "apt.conf"))
        file = str(self.folder / "cache" / "control.dsc")
        asked = ("download-file", control["url"], file, f"SHA256:{control['sha256']}")
        finished = run(Runner(), HELPER, *configuration, *asked, seconds=10 * self.timeout_seconds)
        if finished.status:
            what = f"the mirror lists {control['file']} in Debian {self.name} and does not have it"
            raise SourceError(what, why=reason(finished), remedy=OTHER_SUITE)

    def downloading(self, package: str, version: str, *, into: str) -> Invocation:
        """The command of ``download`` as a plan shows it."""
        argv = self._command("--download-only", "--only-source", "source", f"{package}={version}")
        return Invocation(argv=argv, environment=ENVIRONMENT, folder=into)

    def download(self, runner: Runner, invocation: Invocation) -> None:
        """Downloads the files of a source package, checked by apt against its signed lists; see ``downloading``.

        Raises:
            NetworkError: the mirror does not answer, or no longer has the version.
            MachineError: apt is missing.
        """
        with self._locked():
            finished = run(runner, *invocation.argv, cwd=Path(str(invocation.folder)), seconds=DOWNLOAD_SECONDS)
        if finished.status:
            what = f"the source package {invocation.argv[-1]} of Debian {self.name} cannot be downloaded"
            raise NetworkError(
                what, why=reason(finished), remedy='run the command again, or set onednn.origin = "path"'
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # apt does not wait for its own lock, and several runs may plan at once.
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock", timeout=10 * self.timeout_seconds)
        try:
            lock.acquire()
        except Timeout as error:
            what = f"apt's lists of Debian {self.name} cannot be updated"
            why = f"another process holds {lock.lock_file}"
            raise NetworkError(what, why=why, remedy="wait for the other run, or end it") from error
        try:
            yield
        finally:
            lock.release()

    def _update(self) -> None:
        mirror = host_mirror(Runner())
        if mirror is None:
            what = "Debian's source packages cannot be taken here"
            why = "this host is no Debian, or its apt has no mirror of Debian configured"
            raise MachineError(what, why=why, remedy='set onednn.origin = "path"')
        for name in ("lists/partial", "cache/archives/partial", "sources"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        signed = f"Signed-By: {KEYRING}\n" if KEYRING.is_file() else ""
        text = SOURCE.format(mirror=mirror, suite=self.name) + signed
        write_atomically(self.folder / "sources" / "suite.sources", text)
        configuration = CONFIGURATION.format(folder=self.folder, timeout=self.timeout_seconds)
        write_atomically(self.folder / "apt.conf", configuration)
        finished = self._apt("update")
        if finished.status:
            what = f"Debian {self.name} cannot be read from {redacted(mirror)}"
            remedy = 'check the network and apt\'s sources, set onednn.debian_suite, or set onednn.origin = "path"'
            raise NetworkError(what, why=reason(finished), remedy=remedy)

    def _apt(self, *arguments: str) -> Finished:
        return run(Runner(), *self._command(*arguments), seconds=10 * self.timeout_seconds)

    def _command(self, *arguments: str) -> tuple[str, ...]:
        return ("apt-get", "--quiet", "-c", str(self.folder / "apt.conf"), *arguments)


def run(runner: Runner, *argv: str, cwd: Path | None = None, seconds: float) -> Finished:
    """Runs one of Debian's tools to its end, whatever its exit status.

    Raises:
        MachineError: the tool is missing.
        NetworkError: it took longer than ``seconds``.
    """
    tool = argv[0]
    try:
        return runner.run(argv, env=ENVIRONMENT, cwd=cwd, timeout_seconds=seconds, keep_output=True, quiet=True)
    except FileNotFoundError as error:
        what = f"{tool} is not installed"
        why = "Debian's source packages are taken with it"
        raise MachineError(what, why=why, remedy=f"apt-get install {PACKAGES[tool]}") from error
    except StepTimeoutError as error:
        what = f"{tool} did not finish"
        raise NetworkError(
            what, why=f"no end within {seconds:.0f} s", remedy="check the network and try again"
        ) from error


def reason(finished: Finished) -> str:
    """The line in which a tool says why it failed."""
    lines = [line for line in finished.tail if line.startswith(("E: ", "dpkg-source: error:"))]
    first = next(iter(lines or finished.tail), f"{finished.argv[0]} ended with status {finished.status}")
    return redacted(first.removeprefix("E: ").removeprefix("dpkg-source: error: ").strip())
