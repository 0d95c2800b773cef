"""What a patch is: a change of the source, and the releases and families that it is applied to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from packaging.specifiers import SpecifierSet

from vllm_wheels.core.patches.labels import ALL_EXTENSIONS, SAME_CODE, WITHOUT, all_extensions, same_code, without
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import Family, Upstream
from vllm_wheels.core.variants import OptionalPromise, SameCode, Variant, variants

ANY_RELEASE = SpecifierSet()
BOTH_FAMILIES: tuple[Family, ...] = ("host-detected", "unified")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the patches are to make of a release.

    Attributes:
        same_code: why the variant has a lower one's machine code in the release; None where it has its own.
        lacking: what of its optional promises the machine code cannot keep in the release.
        whole: keep all of upstream's extensions.
        licence: SPDX expression that a person named for a release whose licence is not known; None for the known one.
    """

    upstream: Upstream
    variant: Variant
    distributions: Mapping[str, str]
    same_code: SameCode | None = None
    lacking: tuple[OptionalPromise, ...] = ()
    whole: bool = False
    licence: str | None = None

    @property
    def distribution(self) -> str:
        """Name of the wheel's distribution."""
        return self.distributions[self.variant.name]

    @property
    def code(self) -> Variant:
        """The variant with the flags, sources and promises that it is compiled with."""
        if self.whole:
            return all_extensions(self.variant)
        code = self.variant
        if self.same_code:
            lower = variants()[self.same_code.same_code_as]
            code = same_code(code, lower)
            if not self.same_code.own_ceiling:
                code = replace(code, ceiling=lower.ceiling)
        return without(code, self.lacking)

    @property
    def summary(self) -> str:
        """The wheel's description in one line, which ``labels.as_labelled`` understands."""
        if self.whole:
            return self.variant.summary + ALL_EXTENSIONS
        summary = self.variant.summary
        if self.same_code:
            summary += SAME_CODE.format(distribution=self.distributions[self.same_code.same_code_as])
        if self.lacking:
            summary += WITHOUT.format(features=", ".join(each.promise for each in self.lacking))
        return summary


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A change of the source, applied only where it is meant for the release; raises PatchError."""

    name: str
    apply: Callable[[Tree, Wanted], None]
    releases: SpecifierSet = ANY_RELEASE
    families: tuple[Family, ...] = BOTH_FAMILIES

    def meant_for(self, upstream: Upstream) -> bool:
        """Whether the patch is applied to the release."""
        return upstream.family in self.families and self.releases.contains(upstream.release, prereleases=True)
