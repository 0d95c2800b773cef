"""Tries the patches on every source archive that the index has, and writes the outcome as docs/releases.md.

    python -m benchmarks.patch_table docs/releases.md

Archives are downloaded once, 1.2 GB in all, into vllm-wheels-tests below the user's cache folder (XDG_CACHE_HOME).
Nothing is compiled: the table says what the pipeline makes of a release's source, or why it refuses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.version import Version

from vllm_wheels.core.host.archives import unpack
from vllm_wheels.core.host.commands import Download
from vllm_wheels.core.host.downloads import download
from vllm_wheels.core.index.releases import Release, archive_of, releases
from vllm_wheels.core.operations.descriptions import outcome
from vllm_wheels.core.patches import upstream
from vllm_wheels.core.settings import Settings, load
from vllm_wheels.core.variants import variants

HEAD = """\
# Releases

What the pipeline makes of each release's source. Written by `python -m benchmarks.patch_table docs/releases.md`,
which patches every source archive for every variant without compiling it; `./run test -n 0 -m whole -k patch_table`
repeats it.

- **yes**: all patches took. avx512bf16 holds VNNI instructions where the release has kernels for them, and else says
  that it has none (`docs/variants.md`).
- **= NAME**: it holds the machine code of that variant, and says so (`docs/variants.md`); with
  `wheel.same_code_variants = "refuse"` it is refused. From 0.9.2 to 0.11.0 amxbf16 calls kernels of that code that
  avx512bf16 leaves unused.
- **no**: refused before anything is compiled, for the reason with that number.

## A new release

`vllm-wheels release show VERSION` describes a release by its source: licence, pins, flags, extensions with their
lists, lookups of the distribution, questions about the CPU, extras; and says what the patches make of it.
`vllm-wheels release diff A B` shows what of that changed.

What a tree holds and the patches do not know is refused, with the file, or carried over with a notice; it is never
dropped in silence.

| in the tree | outcome |
|---|---|
| another licence, or another text of LICENSE | refused until `wheel.licence` names it |
| torch not pinned, or from a URL | required as the build pins it, with a notice; refused where that does not |
| a constraints file, or another option of pip | refused |
| a flag that chooses instructions (`-m...`, `-march=native`) and is no variant's | refused |
| another flag | passed on, with a notice |
| a further extension with kernels, or code that imports one which a wheel lacks | refused |
| a further extension beside them | compiled and shipped, with a notice |
| a lookup of `vllm` | renamed; where the name is computed, answered at run time |
| a question about the CPU that no variant knows | answered with no |
| an extra of vLLM's own extras | renamed |
| a requirement that pulls in the distribution `vllm` | dropped, with a notice |
| syntax that is newer than the Python of vllm-wheels | refused |
| a branch called like a release; a tag that moved; a submodule | not for release; told; refused |

`python -m benchmarks.drift TREE VERSION` alters an unpacked tree at random and counts: refused, right, wrong.

## All releases

"""
NO_ARCHIVE = 'no source archive; build it from git (`source.origin = "git"`)'


@dataclass(frozen=True)
class Row:
    """One release: what its tree demands, and the outcome for each variant; a refusal is its reason."""

    release: str
    family: str
    torch: str
    onednn: str
    outcomes: Mapping[str, str]


def cache_folder() -> Path:
    """Where downloaded archives stay."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vllm-wheels-tests"


def archive(settings: Settings, release: Release) -> Path:
    """The release's source archive, downloaded unless it is there already."""
    announced = archive_of(settings, release)
    path = cache_folder() / announced.filename
    if not path.is_file() or path.stat().st_size != announced.size:
        wanted = Download(url=announced.url, size=announced.size, sha256=announced.sha256)
        download(wanted, path, settings=settings)
    return path


def row(settings: Settings, release: Release) -> Row:
    """Unpacks a release and patches it for each variant."""
    if release.sdist is None:
        return Row(release.version, "", "", "", dict.fromkeys(variants(), NO_ARCHIVE))
    with TemporaryDirectory(prefix="vllm-wheels-table-") as temporary:
        tree = Path(temporary) / "tree"
        unpack(archive(settings, release), tree)
        demands = upstream.read(tree, release=release.version)
        outcomes = {name: _outcome(tree, demands, name, settings) for name in variants()}
    return Row(release.version, demands.family, demands.torch, demands.onednn_tag, outcomes)


def _outcome(tree: Path, demands: upstream.Upstream, name: str, settings: Settings) -> str:
    found = outcome(tree, demands, variants()[name], settings)
    return found.refused or (f"= {found.same_code_as}" if found.same_code_as else "yes")


def rows(settings: Settings) -> Iterator[Row]:
    """All releases from ``upstream.FIRST`` on that are not yanked or prereleases, newest first."""
    for release in reversed(releases(settings)):
        if Version(release.version) >= upstream.FIRST and not release.yanked and not release.prerelease:
            yield row(settings, release)


def as_markdown(found: list[Row]) -> str:
    """The page."""
    reasons: list[str] = []
    lines = [f"| vLLM | family | torch | oneDNN | {' | '.join(variants())} |", "|---" * (4 + len(variants())) + "|"]
    for each in found:
        cells = [_cell(outcome, reasons) for outcome in each.outcomes.values()]
        lines.append(f"| {each.release} | {each.family} | {each.torch} | {each.onednn} | {' | '.join(cells)} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return HEAD + "\n".join([*lines, "", "Reasons:", "", *notes]) + "\n"


def _cell(outcome: str, reasons: list[str]) -> str:
    if outcome == "yes" or outcome.startswith("= "):
        return outcome
    if outcome not in reasons:
        reasons.append(outcome)
    return f"no ({reasons.index(outcome) + 1})"


def main() -> None:
    """Writes the page to the file that the command line names."""
    found = []
    for each in rows(load()):
        sys.stderr.write(f"{each.release} {each.family}: {', '.join(each.outcomes.values())}\n")
        found.append(each)
    Path(sys.argv[1]).write_text(as_markdown(found), "utf-8")


if __name__ == "__main__":
    main()
