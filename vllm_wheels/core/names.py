"""What the distributions of the variants are called: from variants.toml, or as the user configured."""

from __future__ import annotations

from difflib import get_close_matches

from packaging.utils import InvalidName, canonicalize_name

from vllm_wheels.core.errors import SettingsError
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import variants


def distributions(settings: Settings) -> dict[str, str]:
    """Distribution name of every variant, lowest instruction set first.

    Raises:
        SettingsError: a name is given for a variant that does not exist, or no distribution may be called so.
    """
    known = variants()
    configured = settings.wheel.distributions
    for variant, name in configured.items():
        if variant not in known:
            near = get_close_matches(variant, known, n=1)
            what = f"setting wheel.distributions names the variant {variant!r}, which does not exist"
            remedy = f"write {near[0]}" if near else f"choose from {', '.join(known)}"
            raise SettingsError(what, why="variants.toml does not define it", remedy=remedy)
        try:
            canonicalize_name(name, validate=True)
        except InvalidName as error:
            what = f"setting wheel.distributions calls {variant} {name!r}"
            why = "a distribution's name consists of letters, digits, '.', '_' and '-'"
            raise SettingsError(what, why=why, remedy="choose another name") from error
    return {name: configured.get(name, variant.distribution) for name, variant in known.items()}


def version_of(release: str, settings: Settings) -> str:
    """Version of a release's wheels: the release's own, with the suffix of a rebuild."""
    return f"{release}{settings.wheel.version_suffix}"
