"""A wheel that says it brings tcmalloc has it where vLLM looks, with its licence; and one that has it says so."""

from packaging.utils import canonicalize_name

from vllm_wheels.core.formats.wheelfile import BUNDLED_TCMALLOC
from vllm_wheels.core.verify.checks import Check, Judgement, convicted_of, passed, skipped
from vllm_wheels.core.verify.static.sbom import components
from vllm_wheels.core.verify.unpacked import UnpackedWheel

PROJECT = canonicalize_name("gperftools")
"""As which an SBOM lists tcmalloc."""

LICENCE = "gperftools"
"""Part of the name of its licence file."""


def _tcmalloc(unpacked: UnpackedWheel) -> Judgement:
    listed = any(name == PROJECT for name, _ in components(unpacked))
    licensed = any(LICENCE in str(name) for name in unpacked.file.metadata.get_all("License-File", []))
    held = BUNDLED_TCMALLOC in unpacked.file.members
    if not (held or listed or licensed):
        return skipped(f"it neither holds {BUNDLED_TCMALLOC} nor says so")
    if not unpacked.ours:
        return passed(f"{'holds' if held else 'mentions'} tcmalloc")
    missing = {
        f"{BUNDLED_TCMALLOC} is not in the wheel, which says that it holds tcmalloc": held,
        "the SBOM does not list gperftools, whose tcmalloc the wheel holds": listed,
        "no License-File is that of gperftools, whose tcmalloc the wheel holds": licensed,
    }
    if faults := [fault for fault, there in missing.items() if not there]:
        return convicted_of(faults, remedy="build it anew, in a builder image that has tcmalloc")
    return passed("vLLM finds tcmalloc in the wheel and preloads it")


CHECKS: tuple[Check[UnpackedWheel], ...] = (Check("tcmalloc", "look for the allocator that vLLM preloads", _tcmalloc),)
