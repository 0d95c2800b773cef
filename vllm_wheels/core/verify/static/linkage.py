"""Which libraries and symbol versions a wheel's compiled code needs of the system, by auditwheel."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from auditwheel import wheel_abi
from auditwheel.architecture import Architecture
from auditwheel.elfutils import elf_find_versioned_symbols
from auditwheel.error import AuditwheelError
from auditwheel.libc import Libc
from auditwheel.policy import Policy, WheelPolicies
from auditwheel.wheel_abi import analyze_wheel_abi, get_wheel_elfdata
from auditwheel.wheeltools import InWheelCtx
from elftools.elf.elffile import ELFFile

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.elf import DAMAGED, TORCH_LIBRARIES, Binary
from vllm_wheels.core.verify.locations import glibc

NOWHERE = "/nonexistent"
"""Searched in place of this host's library folders, so that the verdict does not depend on this host."""

GLIBC_SYMBOL = re.compile(r"GLIBC_(\d+)\.(\d+)")

# Its warnings would reach standard error past the report; what matters of them is in the result.
logging.getLogger("auditwheel").addHandler(logging.NullHandler())


@dataclass(frozen=True, kw_only=True)
class Linkage:
    """What the compiled code needs of the system."""

    policies: WheelPolicies  # of auditwheel, for glibc on x86-64
    deserved: Policy  # the policy that the code keeps to; plain ``linux`` where it keeps to none
    # Libraries that are neither in the wheel nor brought by torch, by policy that does not promise them
    outside: Mapping[str, tuple[str, ...]]

    def claimed(self, platform: str) -> Policy | None:
        """The policy that a platform tag names; of tags that auditwheel does not know the next older one.

        PEP 600 gives every glibc version a tag; auditwheel lists those that distributions have.
        """
        found = [policy for policy in self.policies if platform in {policy.name, *policy.aliases}]
        if found or (named := glibc(platform)) is None:
            return found[0] if found else None
        older = [policy for policy in self.policies if (known := glibc(policy.name)) and known <= named]
        return max(older, key=lambda policy: glibc(policy.name) or (0, 0), default=None)


@dataclass(frozen=True)
class _Unpacked:
    """A wheel's folder, as auditwheel wants it."""

    path: Path

    iter_files = InWheelCtx.iter_files


@contextmanager
def _unpacked(folder: Path) -> Iterator[_Unpacked]:
    with chdir(folder):
        yield _Unpacked(folder)


def linkage(wheel: Path, folder: Path) -> Linkage:
    """Analyses a wheel, and the folder in which it is unpacked, with auditwheel."""
    try:
        # By itself it would unpack the wheel once more, which takes seconds of a large one.
        with patch.object(wheel_abi, "InGenericPkgCtx", lambda _: _unpacked(folder)):
            found = analyze_wheel_abi(
                Libc.GLIBC,
                Architecture.x86_64,
                wheel,
                frozenset(TORCH_LIBRARIES),
                disable_isa_ext_check=True,
                allow_graft=True,
                args_ldpaths=NOWHERE,
            )
    except (AuditwheelError, RuntimeError, KeyError, OSError, *DAMAGED) as error:
        what = "auditwheel cannot make sense of the wheel"
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CannotVerifyError(what, why=why, remedy="run auditwheel show on it") from error
    finally:
        # It remembers by path, under which another file may lie next time.
        get_wheel_elfdata.cache_clear()
    return Linkage(
        policies=found.policies,
        deserved=found.overall_policy,
        outside={name: tuple(sorted(reference.libs)) for name, reference in found.external_refs.items()},
    )


def too_new(binaries: tuple[Binary, ...], policy: Policy, platform: str) -> Iterator[tuple[str, str]]:
    """File and ``VERSION of LIBRARY`` for each symbol version that a file needs and a platform does not promise.

    The policy is the one that the platform's tag names, or the next older one: then the tag's own number promises more.
    """
    promised = {f"{prefix}_{version}" for prefix, versions in policy.symbol_versions.items() for version in versions}
    ruled = tuple(f"{prefix}_" for prefix in policy.symbol_versions)
    for binary in binaries:
        with binary.path.open("rb") as stream:
            found = sorted(set(elf_find_versioned_symbols(ELFFile(stream))))
        for library, version in found:
            if version.startswith(ruled) and version not in promised and not _numbered(version, platform):
                yield binary.name, f"{version} of {library}"


def _numbered(version: str, platform: str) -> bool:
    match, limit = GLIBC_SYMBOL.match(version), glibc(platform)
    return match is not None and limit is not None and (int(match[1]), int(match[2])) <= limit
