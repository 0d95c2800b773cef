"""The statement to rebuild a wheel from: in-toto (Statement v1) with the SLSA provenance predicate (v1)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.artifacts.compiled.configuration import BUILD
from vllm_wheels.core.engine.plan import digest
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.texts import redacted
from vllm_wheels.core.variants import variant

if TYPE_CHECKING:
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:vllm-wheels:wheel:1"
LONGEST_TEXT = 80

LOCKS = ("torch_env", "tools")
"""Artifacts that are environments; their locks are in the statement."""

SECTIONS: Mapping[str, frozenset[str]] = {
    "source": frozenset(),
    "torch": frozenset(),
    "onednn": frozenset(),
    "wheel": frozenset(),
    "builder": frozenset({"kind", "image"}),
}
"""Sections of the settings that decide about a wheel; of ``builder`` only these keys do, of the others all."""


def settings_of(settings: Settings) -> dict[str, Any]:
    """What of the settings decides about a wheel, as plain JSON without credentials."""
    plain = {
        name: getattr(settings, name).model_dump(mode="json", include=set(keys) or None)
        for name, keys in SECTIONS.items()
    }
    cleaned: dict[str, Any] = _redacted({**plain, "substitutes": settings.substitutes})
    return cleaned


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redacted(value)
        case dict():
            return {key: _redacted(entry) for key, entry in value.items()}
        case list():
            return [_redacted(entry) for entry in value]
        case _:
            return value


def dependencies(artifacts: Mapping[str, Artifact], builder: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everything that a wheel is made of, each with a digest and, as annotations, what the digest was taken over."""
    source, onednn, metadata = artifacts["source"], artifacts["onednn"], artifacts["metadata"]
    found = [
        _dependency("source", {"tree": source.facts["tree_sha256"]}, dict(source.details["origin"])),
        _dependency("onednn", {"tree": onednn.facts["tree_sha256"]}, dict(onednn.details["onednn"])),
        _dependency("metadata", {"content": metadata.facts["sha256"]}, dict(metadata.inputs)),
        _dependency("patched", {"content": artifacts["patched"].facts["sha256"]}, dict(artifacts["patched"].inputs)),
        _dependency("builder", {"identity": digest(builder)}, dict(builder)),
    ]
    for name in LOCKS:
        lock = (artifacts[name].folder / "lock.txt").read_text("utf-8")
        found.append(_dependency(name, {"sha256": artifacts[name].details["lock_sha256"]}, {"lock": lock}))
    return found


def _dependency(name: str, digest: Mapping[str, str], annotations: Mapping[str, Any]) -> dict[str, Any]:
    url = annotations.get("url")
    place = {"uri": redacted(str(url))} if url else {}
    return {"name": name, "digest": dict(digest), "annotations": _redacted(dict(annotations)), **place}


def slsa(target: Target, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """The predicate, without what only making the wheel tells."""
    compiled = artifacts["compiled"]
    builder = compiled.inputs["builder"]
    times = {"startedOn": _time(compiled.made_at - compiled.seconds), "finishedOn": _time(compiled.made_at)}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"release": target.release, "variant": target.variant, "python": target.python},
            "internalParameters": {
                "compile": {**compiled.inputs, "build": BUILD},
                "variant": asdict(variant(str(target.variant))),
            },
            "resolvedDependencies": dependencies(artifacts, builder),
        },
        "runDetails": {
            "builder": {
                "id": f"urn:vllm-wheels:builder:{builder.get('kind', 'unknown')}",
                "version": {"vllm-wheels": version("vllm-wheels")},
            },
            "metadata": {"invocationId": compiled.key, **times},
        },
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def in_toto(wheel: Path, predicate: Mapping[str, Any], *, settings: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """The whole statement about a finished wheel, from what ``slsa`` and ``settings_of`` gave."""
    definition, details = dict(predicate["buildDefinition"]), dict(predicate["runDetails"])
    definition["externalParameters"] = {**definition["externalParameters"], "settings": settings}
    details["byproducts"] = [{"name": log.name, "digest": {"sha256": sha256_of(log)}}]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": wheel.name, "digest": {"sha256": sha256_of(wheel)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"buildDefinition": definition, "runDetails": details},
    }


def differences(stated: Iterable[Mapping[str, Any]], found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Which dependencies differ, a line each, down to the annotation that does."""
    now = {each["name"]: each for each in found}
    lines = []
    for each in stated:
        other = now.get(each["name"])
        if other is None:
            lines.append(f"{each['name']}: is no input any more")
        elif other["digest"] != each["digest"]:
            lines.append(f"{each['name']}: {_difference(each, other)}")
    return lines


def _difference(stated: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    before, after = stated["annotations"], found["annotations"]
    keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    told = [f"{key} was {_short(before.get(key))}, is {_short(after.get(key))}" for key in keys if key != "lock"]
    if "lock" in keys:
        changed = set(str(before.get("lock")).splitlines()) ^ set(str(after.get("lock")).splitlines())
        told.append(", ".join(sorted(line.split()[0] for line in changed if "==" in line)))
    digests = f"digest was {_short(stated['digest'])}, is {_short(found['digest'])}"
    return "; ".join(told) or digests


def _short(value: Any) -> str:
    text = str(value)
    return textwrap.shorten(text, LONGEST_TEXT, placeholder="...")
