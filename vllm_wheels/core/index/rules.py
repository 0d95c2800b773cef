"""The rules of the public index, read from index_rules.toml, and a check for each."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import Message
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import readme_renderer.rst
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from vllm_wheels.core.formats.wheel_name import WheelName
from vllm_wheels.core.index.state import ProjectState


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A table of index_rules.toml, whose head explains the keys; ``limits`` holds the rule's own."""

    name: str
    says: str
    scope: Literal["wheel", "index"]
    source: str
    limits: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file as the rules look at it."""

    name: str  # of the file
    size: int
    metadata: Message
    project: ProjectState  # the project's state on the index
    growth: int  # bytes that this release adds to the project, this file included
    published_before: bool  # this installation's receipts say that a file of this name was there
    now: datetime


@cache
def rules() -> dict[str, Rule]:
    """All rules by name."""
    table = tomllib.loads(files(__package__).joinpath("index_rules.toml").read_text("utf-8"))
    return {
        name: Rule(
            name=name, says=entry.pop("says"), scope=entry.pop("scope"), source=entry.pop("source"), limits=entry
        )
        for name, entry in table.items()
    }


def broken_rules(upload: Upload) -> list[tuple[Rule, str]]:
    """The rules that would refuse a file, each with what is wrong with it in one line."""
    return [(rule, why) for rule in rules().values() if (why := CHECKS[rule.name](rule, upload))]


def _file_size(rule: Rule, upload: Upload) -> str | None:
    over = upload.size > rule.limits["limit_bytes"]
    return f"it has {upload.size / 2**20:.1f} MiB" if over else None


def _project_size(rule: Rule, upload: Upload) -> str | None:
    there = sum(file.size or 0 for file in upload.project.files.values())
    over = there + upload.growth > rule.limits["limit_bytes"]
    return f"the project has {there / 2**30:.2f} GiB, and {upload.growth / 2**30:.2f} GiB would come" if over else None


def _release_age(rule: Rule, upload: Upload) -> str | None:
    version = str(WheelName.parse(upload.name).version)
    times = [file.uploaded for file in upload.project.of_version(version) if file.uploaded]
    if not times or upload.now - min(times) <= timedelta(days=rule.limits["limit_days"]):
        return None
    return f"{version} was created {min(times):%Y-%m-%d}, {(upload.now - min(times)).days} days ago"


def _url_requirement(_: Rule, upload: Upload) -> str | None:
    for line in upload.metadata.get_all("Requires-Dist", []):
        try:
            if Requirement(line).url:
                return f"it requires {line}"
        except InvalidRequirement:
            return f"its requirement {line!r} cannot be read"
    return None


def _local_version(_: Rule, upload: Upload) -> str | None:
    version = str(upload.metadata["Version"])
    return f"it is {version}" if Version(version).local else None


def _platform_tag(rule: Rule, upload: Upload) -> str | None:
    platforms = WheelName.parse(upload.name).platforms
    wrong = [name for name in platforms if not re.fullmatch(rule.limits["allowed"], name)]
    return f"it is tagged {', '.join(wrong)}" if wrong else None


def _description(rule: Rule, upload: Upload) -> str | None:
    kind = str(upload.metadata["Description-Content-Type"] or "text/x-rst").partition(";")[0].strip()
    if kind not in rule.limits["types"]:
        return f"its description is {kind}"
    text = upload.metadata.get_payload()
    broken = kind == "text/x-rst" and text and readme_renderer.rst.render(str(text)) is None
    return "its description is not sound reStructuredText" if broken else None


def _private(rule: Rule, upload: Upload) -> str | None:
    found = [text for text in upload.metadata.get_all("Classifier", []) if text.startswith(rule.limits["prefix"])]
    return f"it is marked {found[0]!r}" if found else None


def _deleted_name(_: Rule, upload: Upload) -> str | None:
    gone = upload.published_before and upload.name not in upload.project.files
    return "a receipt says that it was there, and now it is not" if gone else None


CHECKS: Mapping[str, Callable[[Rule, Upload], str | None]] = {
    "file-size": _file_size,
    "project-size": _project_size,
    "release-age": _release_age,
    "url-requirement": _url_requirement,
    "local-version": _local_version,
    "platform-tag": _platform_tag,
    "description": _description,
    "private-classifier": _private,
    "deleted-name": _deleted_name,
}
