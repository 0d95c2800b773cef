"""Figures and tables of the documentation agree with the data that they come from."""

from __future__ import annotations

import json
from itertools import product

from benchmarks import published
from vllm_wheels.core.variants import variants
from vllm_wheels_tests.docs.pages import ROOT, Page


def rows(page: Page) -> list[list[str]]:
    """Cells of all tables of a page, without emphasis."""
    lines = [line for line in page.text.splitlines() if line.startswith("| ")]
    return [[cell.strip(" *`") for cell in line.strip("|").split("|")] for line in lines]


def test_table_of_variants_is_that_of_the_code():
    """The page that tells which CPU needs which variant says what the wheels check."""
    found = {row[0]: row[1:] for row in rows(Page(ROOT / "docs/variants.md")) if row[0] in variants() and len(row) == 4}
    lower = variants()["avx512"].floor
    for name, variant in variants().items():
        above = [flag for flag in variant.floor if flag not in lower]
        flags = ["those of avx512", *above] if above and set(lower) < set(variant.floor) else list(variant.floor)
        assert found[name] == [variant.distribution, ", ".join(flags), ", ".join(variant.processors)]


def test_speed_of_the_vnni_ops_is_what_was_measured():
    """No ratio on the page is better than that of the benchmark's result."""
    ratios = json.loads((ROOT / "benchmarks/results/vnni_ops.json").read_text("utf-8"))["ratios"]
    page = rows(Page(ROOT / "docs/vnni.md"))
    others = {"int4": "cpu_gemm_wna16", "int8": "oneDNN"}
    for op, dtype, threads in product(others, ("bfloat16", "float16"), ("1 thread", "2 threads")):
        name = f"{op} {dtype}, threads {threads.split()[0]}"
        medians = [f"{ratios[f'{name}, M={count}'][0]:.2f}" for count in (1, 4, 16, 64, 128, 256)]
        (found,) = (row for row in page if row[0].replace("`", "") == f"{op} {dtype} over {others[op]}, {threads}")
        assert found[1:] == medians


def test_sizes_of_torch_are_those_that_were_measured():
    """Each size on the page is one of the benchmark's result."""
    measured = json.loads((ROOT / "benchmarks/results/torch_sizes.json").read_text("utf-8"))
    page = rows(Page(ROOT / "docs/torch-sizes.md"))
    for build in ("CPU build", "default build"):
        packages = measured[build]
        for each in packages:
            sizes = [f"{each[kind] / 1e6:.1f}" for kind in ("download", "installed")]
            assert ["", f"{each['package']} {each['version']}", *sizes] in page
        totals = [sum(each[kind] for each in packages) / 1e6 for kind in ("download", "installed")]
        assert [build, f"{len(packages)} packages", *(f"{total:.1f}" for total in totals)] in page
        assert [build, *(f"{total:.0f} MB" for total in totals), str(len(packages))] in page


def test_pages_of_published_wheels_are_those_of_the_results():
    """No verdict on somebody's wheel is written by hand."""
    wanted = published.pages(published.results())
    assert {path: path.read_text("utf-8") for path in wanted} == wanted
    assert set(published.FOLDER.glob("*.md")) == wanted.keys() - {published.PAGE}
