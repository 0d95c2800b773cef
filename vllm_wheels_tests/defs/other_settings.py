"""Other values of the settings, one at a time, for tests of what a changed setting touches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from vllm_wheels.core.sections import RemoteSettings, Section
from vllm_wheels.core.settings import RepositorySettings, Settings


@dataclass(frozen=True)
class Place:
    """Where values of settings lead to, with settings to start from."""

    root: Path
    settings: Settings

    def folder(self, name: str) -> Path:
        (self.root / name).mkdir(exist_ok=True)
        return self.root / name

    def file(self, name: str, text: str) -> Path:
        (self.root / name).write_text(text, "utf-8")
        return self.root / name


GIVEN: dict[str, Any] = {
    "source.git_ref": "v0.32.0",
    "index.url": lambda place: place.settings.index.url.replace("127.0.0.1", "localhost"),
    "index.find_links": lambda place: (*place.settings.index.find_links, str(place.folder("empty"))),
    "index.extra_urls": lambda place: (place.settings.index.url,),
    "torch.packages": ("torch",),
    "torch.version": "2.13.0",
    "builder.minimum_compiler": "12.1",
    "builder.cache_remote": "redis://localhost:6379",
    "builder.distcc_hosts": ("localhost",),
    "store.remotes": {"another": RemoteSettings(url="http://127.0.0.1:9/store")},
    "store.trusted_keys": {"another": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},
    "workers.broker": "redis://localhost:6379",
    "wheel.distributions": {"avx512": "vllm-cpu-another"},
    "wheel.authors": ("Somebody <somebody@example.org>",),
    "wheel.urls": {"Mirror": "https://example.org"},
    "wheel.version_suffix": ".post1",
    "wheel.licence": "Apache-2.0",
    "wheel.readme": lambda place: place.file("readme.md", "# $distribution\n\nAnother text.\n"),
    "smoke.models": "all",
    "publish.repositories": {"another": RepositorySettings(simple_url="https://example.org/simple/")},
    "publish.required_variants": ("baseline",),
    "automation.variants": ("baseline",),
}
"""Another valid value of settings whose type does not tell one."""

LEFT_OUT = {
    "state_folder": "another store altogether, and with it another database of Dagster's",
    "onednn.origin=debian": "asks Debian's mirror",
}
"""Changes of settings that are not made here, with the reason."""


def leaves(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name, with its type."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from leaves(field.annotation, f"{above}{name}.")
        else:
            yield above + name, field.annotation


def changes() -> list[str]:
    """One for each setting, and for each further choice of a setting that has choices."""
    found = []
    for name, annotation in leaves(Settings):
        if get_origin(annotation) is Literal:
            found += [f"{name}={choice}" for choice in get_args(annotation)]
        else:
            found.append(name)
    return [change for change in found if change not in LEFT_OUT]


def changed(place: Place, change: str) -> Settings:
    """The settings with one other value."""
    name, _, choice = change.partition("=")
    *sections, leaf = name.split(".")
    section = getattr(place.settings, sections[0]) if sections else place.settings
    before = getattr(section, leaf)
    value = choice or other(place, name, before, dict(leaves(Settings))[name])
    update = {leaf: type(section).model_validate({leaf: value}).__getattribute__(leaf)} if sections else {leaf: value}
    altered = section.model_copy(update=update)
    return place.settings.model_copy(update={sections[0]: altered}) if sections else altered


def other(place: Place, name: str, before: Any, annotation: Any) -> Any:
    """Another valid value of a setting."""
    if name in GIVEN:
        given = GIVEN[name]
        return given(place) if callable(given) else given
    wanted = next(each for each in (*get_args(annotation), annotation) if each is not type(None))
    match before:
        case bool():
            return not before
        case int() | float():
            return before * 2
        case tuple():
            return (*before, "another")
    return {int: 2, float: 2.0, Path: place.folder("another"), str: f"{before or ''}another"}[wanted]
