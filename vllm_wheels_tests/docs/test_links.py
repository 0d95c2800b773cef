"""Links: every one that leads to something of this project leads there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from vllm_wheels_tests.docs.pages import ROOT, Page, pages

OWN_FILE = re.compile(
    r"(?<![\w/.])(?:core|defs|commands|docs|benchmarks|vllm_wheels\w*|deploy|verify|patches)/[\w/.-]+\.\w+"
)
"""A path that begins with one of the project's folders; paths of upstream's tree begin otherwise."""


def broken(page: Page) -> list[str]:
    """Links of a page to files or headings that are not there; addresses of other hosts are not asked."""
    found = []
    for link in page.links:
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.path.parent / name) if name else page.path
        if not target.exists() or (anchor and anchor not in Page(target).anchors):
            found.append(link)
    return found


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_lead_somewhere(page):
    """Each link to a page, a heading or a picture of this project can be followed."""
    assert broken(page) == []


def lost(page: Page) -> list[str]:
    """Files of this project that a page names in code, and that are not there."""
    folders = (ROOT, ROOT / "vllm_wheels", ROOT / "vllm_wheels/core", page.path.parent)
    names = [name for span in page.spans for name in OWN_FILE.findall(span)]
    return [name for name in names if not any((folder / name).exists() for folder in folders)]


@pytest.mark.parametrize("page", pages(), ids=str)
def test_files_that_are_named_exist(page):
    """A module that was renamed does not live on in the documentation."""
    assert lost(page) == []


def test_lost_file_is_found(tmp_path):
    """A page that names a module which is gone is noticed."""
    (tmp_path / "page.md").write_text("`core/engine/store.py` and `core/shop.py::keep`\n")
    assert lost(Page(tmp_path / "page.md")) == ["core/shop.py"]


@pytest.mark.parametrize("link", ["gone.md", "#no-such-heading", "other.md#gone", "images/gone.png"])
def test_broken_link_is_found(tmp_path, link):
    """A page that is renamed and a heading that is reworded do not go unnoticed."""
    (tmp_path / "other.md").write_text("# Other\n")
    (tmp_path / "page.md").write_text(f"# Page\n\n[one]({link}) [fine](other.md#other) [itself](#page)\n")
    assert broken(Page(tmp_path / "page.md")) == [link]


def built(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Builds a folder of pages with the project's own configuration, as ``./run docs`` does."""
    words = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-n", "-c", str(ROOT / "docs")]
    return subprocess.run([*words, str(docs), str(site)], check=False, capture_output=True, text=True)


def test_site_is_not_built_with_a_broken_link(tmp_path):
    """The generator fails too: on a page, a heading and a picture that are not there."""
    docs = tmp_path / "docs"
    docs.mkdir()
    lines = ["[page](gone.md)", "[heading](#gone)", "![picture](gone.png)"]
    (docs / "index.md").write_text("# Start\n\n" + "\n\n".join(lines) + "\n")
    done = built(docs, tmp_path / "site")
    assert done.returncode != 0
    assert sorted(line.split(":")[1] for line in done.stderr.splitlines() if "WARNING" in line) == ["3", "5", "7"]


def test_every_page_is_in_the_menu():
    """No page of docs/ is left out of the index's list of contents."""
    index = (ROOT / "docs/index.md").read_text("utf-8")
    listed = {line.strip() for line in index.splitlines()}
    assert [path.stem for path in (ROOT / "docs").glob("*.md") if path.stem not in {*listed, "index"}] == []
