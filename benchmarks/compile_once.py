"""Figures A, B, E and F in one run, which share the plain build and what the five variants leave behind.

python -m benchmarks.compile_once [--real [--artifacts STATE_FOLDER]] [--folder FOLDER] [--save]
"""

from __future__ import annotations

from benchmarks import changed_flags, five_variants, matrix, next_release
from benchmarks.common import arguments, report, workplace
from benchmarks.places import opened

FIGURES = (five_variants, changed_flags, matrix, next_release)


def main() -> None:
    """Measures one after the other; each is reported as soon as it is known."""
    given = arguments(__doc__ or "")
    with workplace(given.folder) as folder, opened(folder, real=given.real, artifacts=given.artifacts) as place:
        for figure in FIGURES:
            report(figure.measure(place), source=place.source, save=given.save)


if __name__ == "__main__":
    main()
