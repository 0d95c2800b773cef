"""The platform tag is true, and nothing that the platform does not promise is left out of the wheel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed, skipped
from vllm_wheels.core.verify.linkage import Linkage, glibc, too_new
from vllm_wheels.core.verify.specimen import Specimen

ANY = "any"
PLAIN = "linux_x86_64"
REPAIR = "let 'auditwheel repair' find the tag, and never name one by hand"


def _tag(specimen: Specimen) -> Judgement:
    platforms = _platforms(specimen)
    if not specimen.binaries:
        return passed(f"{', '.join(platforms)}: it holds no machine code")
    found = specimen.linkage
    wrong = [_Lie(platform=name, linkage=found) for name in platforms if not _honest(name, found)]
    if wrong:
        evidence = "\n".join(line for lie in wrong for line in lie.evidence(specimen))
        needs = ", ".join(sorted({line.partition(" needs ")[2] for line in evidence.splitlines() if " needs " in line}))
        because = f": it needs {needs}" if needs else ""
        line = f"{', '.join(lie.platform for lie in wrong)} is not true{because}"
        return convicted(line, evidence=evidence, remedy=REPAIR)
    if platforms == (PLAIN,):
        return passed(f"{PLAIN} promises to run only where it was built; the code keeps to {found.deserved.name}")
    return passed(f"the code keeps to {found.deserved.name}, the tag says {', '.join(platforms)}")


@dataclass(frozen=True, kw_only=True)
class _Lie:
    platform: str
    linkage: Linkage

    def evidence(self, specimen: Specimen) -> Iterator[str]:
        policy = self.linkage.claimed(self.platform)
        yield f"the code deserves {self.linkage.deserved.name}"
        if policy is not None and policy is not self.linkage.policies.linux:
            yield from too_new(specimen.binaries, policy)


def _honest(platform: str, found: Linkage) -> bool:
    if platform == PLAIN:
        return True
    claimed, deserved = glibc(platform), glibc(found.deserved.name)
    policy = found.claimed(platform)
    if policy is None or deserved is None:
        return False
    # Of a tag that auditwheel does not list, the number tells; of an alias such as manylinux2014, its policy.
    promised = claimed or glibc(policy.name)
    return promised is not None and deserved <= promised


def _outside(specimen: Specimen) -> Judgement:
    if not specimen.binaries:
        return skipped("it holds no machine code")
    found = specimen.linkage
    policies = [policy for name in _platforms(specimen) if (policy := found.claimed(name))]
    promising = [policy for policy in policies if policy is not found.policies.linux]
    lost = sorted({library for policy in promising for library in found.outside[policy.name]})
    if lost:
        evidence = "\n".join(
            f"{each.name} needs {library}" for each in specimen.binaries for library in lost if library in each.needed
        )
        line = f"{', '.join(lost)} is neither inside nor promised by {promising[0].name}"
        remedy = "install it in the builder and let 'auditwheel repair' graft it"
        return convicted(line, evidence=evidence, remedy=remedy)
    taken = found.outside[found.policies.lowest.name] if not promising else ()
    if taken:
        return passed(f"plain linux promises nothing; from the system it takes {', '.join(taken)}")
    return passed("whatever it needs is inside, or brought by torch or the platform")


def _platforms(specimen: Specimen) -> tuple[str, ...]:
    return tuple(sorted({tag.platform for tag in specimen.file.tags}))


CHECKS: tuple[Check[Specimen], ...] = (
    Check(name="platform-tag", title="compare the platform tag with what the code needs", judge=_tag, seconds=3),
    Check(name="outside-libraries", title="look for libraries left outside", judge=_outside),
)
