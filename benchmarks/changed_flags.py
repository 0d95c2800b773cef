"""Figure E: one variant after its flags changed, against a plain build.

    python -m benchmarks.changed_flags [--real [--artifacts STATE_FOLDER]] [--state STATE_FOLDER] [--folder FOLDER]
        [--save]

The variant is the one with the most code, ``amxbf16``. It goes on from a state in which all variants were built: the
one that is given, or a new one.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import five_variants
from benchmarks.common import Figures
from benchmarks.places import PACKAGE, Place, measured

LIMIT = 0.25
VARIANT = "amxbf16"
OLD, NEW = '    "-mamx-tile",\n', '    "-mamx-tile",\n    "-mtune=sapphirerapids",\n'


def measure(place: Place) -> Figures:
    """Builds plainly and all variants, unless this run or an earlier one did, then one variant with a further flag."""
    plain = place.plain()
    if place.earlier_state is None:
        five_variants.all_variants(place)
    state = place.copy(place.earlier_state or place.folder / five_variants.STATE, "flags")
    run = place.pipeline(
        state, "build", "--variant", VARIANT, "--no-verify", "--release", place.release, code=changed(place.folder)
    )
    if run.compiled != 1:
        message = f"{run.compiled} variants were compiled in place of one"
        raise RuntimeError(message)
    return Figures(
        benchmark="changed_flags",
        text=f"{VARIANT} with another flag took {run.cost}; one plain build took {plain}",
        value=run.cost.cpu / plain.cpu,
        limit=LIMIT,
        details={
            **run.cost.against(plain),
            "variant": VARIANT,
            "changed": run.cost.plain(),
            "plain": plain.plain(),
            "ccache": list(place.compiled(state).values())[-1],
        },
    )


def changed(folder: Path) -> Path:
    """A copy of the package with another entry in variants.toml."""
    code = folder / "code"
    shutil.copytree(PACKAGE, code / PACKAGE.name)
    table = code / PACKAGE.name / "core" / "variants.toml"
    text = table.read_text("utf-8")
    if text.count(OLD) != 1:
        message = f"{table} is laid out differently"
        raise RuntimeError(message)
    table.write_text(text.replace(OLD, NEW), "utf-8")
    return code


if __name__ == "__main__":
    measured(measure, __doc__ or "")
