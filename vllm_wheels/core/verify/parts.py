"""Keys of the parts of a verification: the store keeps each check's finding under a key of its own.

The key is a hash of whatever can change the verdict: the wheel, what else the check looks at, the tools that it uses,
and the code that judges. So a changed check runs again on every wheel, and no other check does.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vllm_wheels.core.engine.code import Code, installed
from vllm_wheels.core.engine.plan import Made, Plan, digest
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.formats.instructions import MachineCode, Scan, scan
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.target import Target
from vllm_wheels.core.verify.checks import Check
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.static.machine_code import SCAN_TOOLS

FINDING, SCAN = "finding", "instructions"
"""Kinds of artifacts as which the store keeps findings, and scans of machine code."""

SCANNER = (scan.__module__,)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Keys of the findings about one wheel."""

    wheel: tuple[str, str]  # name of the file and its hash
    inputs: Mapping[str, Any]  # what decides some check beside the wheel, by the name that checks use
    code: Code  # of which the checks' own code is hashed

    def key(self, check: Check[Any], commands: Iterable[Invocation] = ()) -> str:
        """Key of a check's finding.

        Commands belong to it where the user's settings decide about them.
        """
        decisive = {
            "check": check.name,
            "wheel": self.wheel,
            "inputs": {name: self.inputs[name] for name in check.inputs},
            "commands": [each.essence() for each in commands],
            "tools": versions(check.tools),
            "code": self.code.digest(check.code),
        }
        return digest(decisive)


def parts_kept(store: Store) -> Iterator[Artifact]:
    """All findings and scans in a store; ``details["wheel"]`` of each is the hash of its wheel."""
    for kind in (FINDING, SCAN):
        yield from store.artifacts(kind)


def versions(tools: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution."""
    return {name: installed_version(name) for name in sorted(set(tools))}


@cache
def installed_version(tool: str) -> str:
    """Version of a distribution, read once."""
    return version(tool)


@dataclass(frozen=True, kw_only=True)
class KeptParts:
    """Findings and scans of wheels in the store."""

    store: Store  # of all artifacts
    target: Target  # that the wheel was made for
    wait_seconds: float  # how long to wait for another process that keeps the same

    def finding(self, key: str) -> Finding | None:
        """The finding of that key, or None."""
        found = self._found(FINDING, key)
        return Finding.from_json(found) if found else None

    def keep(self, key: str, finding: Finding, *, wheel_sha256: str) -> None:
        """Stores a finding for later verifications."""
        self._keep(FINDING, key, wheel_sha256, asdict(finding))

    def scan(self, wheel_sha256: str, path: Path) -> Scan:
        """The scan of a wheel's machine code: from the store, else made now and stored.

        The path is that of the wheel, or of the folder into which it is unpacked.

        Raises:
            WheelError: an ELF file in it is damaged or not for x86-64.
        """
        key = digest({"wheel": wheel_sha256, "tools": versions(SCAN_TOOLS), "code": installed().digest(SCANNER)})
        if found := self._found(SCAN, key):
            return Scan(tuple(MachineCode(**file) for file in found["files"]))
        made = scan(path)
        self._keep(SCAN, key, wheel_sha256, asdict(made))
        return made

    def _found(self, kind: str, key: str) -> Mapping[str, Any] | None:
        artifact = self.store.find(kind, str(self._plan(kind, key).key))
        return artifact.facts if artifact else None

    def _keep(self, kind: str, key: str, wheel_sha256: str, facts: Mapping[str, Any]) -> None:
        plan = self._plan(kind, key)
        with self.store.making(kind, str(plan.key), wait_seconds=self.wait_seconds) as stage:
            details = {"wheel": wheel_sha256}
            self.store.keep(plan, stage, Made(facts=facts, details=details), made_from={}, seconds=0.0)

    def _plan(self, kind: str, key: str) -> Plan:
        return Plan(artifact=kind, target=self.target, inputs={"part": key}, steps=())
