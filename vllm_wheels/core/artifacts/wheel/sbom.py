"""The list of what is in a wheel, as CycloneDX inside dist-info/sboms (PEP 770): the same contents, the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from vllm_wheels.core.engine.plan import digest
from vllm_wheels.core.formats.wheelfile import BUNDLED_TCMALLOC, Member

if TYPE_CHECKING:
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.target import Target

ROLE = "vllm-wheels:role"

TCMALLOC, TCMALLOC_LICENCE = "gperftools", "BSD-3-Clause"
"""The project that tcmalloc is of, and its licence (SPDX)."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What goes into a wheel, apart from what is grafted; torch is what it is compiled against, and not inside."""

    distribution: str
    version: str
    release: str
    source_sha256: str
    onednn: str
    onednn_sha256: str
    torch: str
    builder: Mapping[str, Any]
    flags: Iterable[str]
    tcmalloc: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, target: Target, artifacts: Mapping[str, Artifact]) -> Contents:
        """What the artifacts of a wheel are made of."""
        metadata, onednn = artifacts["metadata"].facts, artifacts["onednn"]
        return cls(
            distribution=metadata["distribution"],
            version=metadata["version"],
            release=target.release,
            source_sha256=artifacts["source"].facts["tree_sha256"],
            onednn=onednn.details["onednn"]["version"],
            onednn_sha256=onednn.facts["tree_sha256"],
            torch=artifacts["torch_env"].facts["torch"],
            builder=artifacts["compiled"].inputs["builder"],
            flags=metadata["flags"],
            tcmalloc=artifacts["compiled"].facts.get("tcmalloc"),
        )


def bill_of_materials(
    contents: Contents, members: Mapping[str, Member], grafted: Iterable[str], *, epoch: int
) -> bytes:
    """The document, with a serial number that follows from the contents."""
    libraries = [_grafted(members[name].read(), name) for name in sorted(grafted)]
    bundled = [_tcmalloc(contents.tcmalloc)] if contents.tcmalloc else []
    inside = [_vllm(contents), _onednn(contents), *bundled, *libraries]
    used = [_torch(contents), _compiler(contents)]
    identity = digest({"wheel": [contents.distribution, contents.version], "parts": [_key(each) for each in inside]})
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"urn:vllm-wheels:{identity}"))
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    root = _library(contents.distribution, contents.version, pypi=True)
    bom.metadata.component = root
    bom.components.update(inside, used)
    bom.register_dependency(root, inside)
    return JsonV1Dot6(bom).output_as_string(indent=1).encode() + b"\n"


def _key(component: Component) -> list[str]:
    return [component.name, str(component.version), *(entry.content for entry in component.hashes)]


def _library(name: str, version: str | None, *, ref: str = "", pypi: bool = False, **more: Any) -> Component:
    purl = PackageURL("pypi", None, name, version) if pypi else None
    return Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=ref or name, purl=purl, **more)


def _vllm(contents: Contents) -> Component:
    return _library("vllm", contents.release, pypi=True, properties=[_tree(contents.source_sha256)])


def _onednn(contents: Contents) -> Component:
    tree = [_tree(contents.onednn_sha256)] if contents.onednn_sha256 else []
    return _library("oneDNN", contents.onednn, ref="onednn", properties=tree)


def _tree(sha256: str) -> Property:
    # Not a hash of CycloneDX: it is of a tree of files, not of one file.
    return Property(name="vllm-wheels:tree-sha256", value=sha256)


def _grafted(content: bytes, name: str) -> Component:
    digest = HashType(alg=HashAlgorithm.SHA_256, content=sha256(content).hexdigest())
    return _library(
        PurePosixPath(name).name, None, ref=name, hashes=[digest], properties=[Property(name=ROLE, value="grafted")]
    )


def _tcmalloc(stated: Mapping[str, Any]) -> Component:
    """The allocator, under its project's name, and the package of the builder image that it is of."""
    purl = PackageURL(**stated["purl"])
    return Component(
        name=TCMALLOC,
        version=purl.version,
        type=ComponentType.LIBRARY,
        bom_ref=BUNDLED_TCMALLOC,
        purl=purl,
        licenses=[DisjunctiveLicense(id=TCMALLOC_LICENCE)],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=stated["sha256"])],
        properties=[Property(name=ROLE, value="bundled")],
    )


def _torch(contents: Contents) -> Component:
    role = Property(name=ROLE, value="compiled against")
    return _library("torch", contents.torch, scope=ComponentScope.EXCLUDED, properties=[role])


def _compiler(contents: Contents) -> Component:
    text = str(contents.builder.get("compiler", "unknown"))
    name, _, version = text.partition(" ")
    return Component(
        name=name,
        version=version or None,
        type=ComponentType.APPLICATION,
        bom_ref="compiler",
        scope=ComponentScope.EXCLUDED,
        properties=[
            Property(name=ROLE, value="compiler"),
            *(Property(name="vllm-wheels:flag", value=flag) for flag in contents.flags),
        ],
    )
