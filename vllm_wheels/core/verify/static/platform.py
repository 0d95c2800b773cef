"""The code keeps to the platform tag, and libraries that the platform does not promise are inside the wheel."""

from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed, skipped
from vllm_wheels.core.verify.locations import glibc
from vllm_wheels.core.verify.static.linkage import linkage, too_new
from vllm_wheels.core.verify.unpacked import UnpackedWheel

TOOLS = ("auditwheel", "packaging", "pyelftools")
PLAIN = "linux_x86_64"
REPAIR = "let 'auditwheel repair' find the tag, and never name one by hand"


def _tag(unpacked: UnpackedWheel) -> Judgement:
    platforms = _platforms(unpacked)
    if not unpacked.binaries:
        return passed(f"{', '.join(platforms)}: it holds no machine code")
    found = unpacked.read(linkage, unpacked.folder)
    lies = {name: excess for name in platforms if (excess := _excess(unpacked, name)) is not None}
    if lies:
        each = [excess for excesses in lies.values() for excess in excesses]
        needs = ", ".join(sorted({needed for _, needed in each}))
        because = f": it needs {needs}" if needs else ""
        evidence = "\n".join(
            [f"the code deserves {found.deserved.name}", *(f"{file} needs {needed}" for file, needed in each)]
        )
        return convicted(f"{', '.join(lies)} is not true{because}", evidence=evidence, remedy=REPAIR)
    if platforms == (PLAIN,):
        return passed(f"{PLAIN} promises to run only where it was built; the code keeps to {found.deserved.name}")
    return passed(f"the code keeps to {found.deserved.name}, the tag says {', '.join(platforms)}")


def _excess(unpacked: UnpackedWheel, platform: str) -> list[tuple[str, str]] | None:
    """Symbol versions, by file, that the code needs beyond a platform tag; None where the tag is true."""
    found = unpacked.read(linkage, unpacked.folder)
    if platform == PLAIN:
        return None
    policy = found.claimed(platform)
    if policy is None:
        return []
    promised, deserved = glibc(platform) or glibc(policy.name), glibc(found.deserved.name)
    if promised and deserved and deserved <= promised:
        return None
    excess = list(too_new(unpacked.binaries, policy, platform))
    # Between two policies of auditwheel, a tag's own number promises more than the older of them.
    between = platform not in {policy.name, *policy.aliases}
    return None if between and not excess else excess


def _outside(unpacked: UnpackedWheel) -> Judgement:
    if not unpacked.binaries:
        return skipped("it holds no machine code")
    found = unpacked.read(linkage, unpacked.folder)
    policies = [policy for name in _platforms(unpacked) if (policy := found.claimed(name))]
    promising = [policy for policy in policies if policy is not found.policies.linux]
    lost = sorted({library for policy in promising for library in found.outside[policy.name]})
    if lost:
        evidence = "\n".join(
            f"{each.name} needs {library}" for each in unpacked.binaries for library in lost if library in each.needed
        )
        line = f"{', '.join(lost)} is neither inside nor promised by {promising[0].name}"
        remedy = "install it in the builder and let 'auditwheel repair' graft it"
        return convicted(line, evidence=evidence, remedy=remedy)
    taken = found.outside[found.policies.lowest.name] if not promising else ()
    if taken:
        return passed(f"plain linux promises nothing; from the system it takes {', '.join(taken)}")
    return passed("whatever it needs is inside, or brought by torch or the platform")


def _platforms(unpacked: UnpackedWheel) -> tuple[str, ...]:
    return tuple(sorted({tag.platform for tag in unpacked.file.tags}))


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check("platform-tag", "compare the platform tag with what the code needs", _tag, seconds=3, tools=TOOLS),
    Check("outside-libraries", "look for libraries left outside", _outside, tools=TOOLS),
)
