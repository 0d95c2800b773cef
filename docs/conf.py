"""How the site is made of these pages: `./run docs` builds it, and fails on a link that leads nowhere."""

from importlib.metadata import version as version_of

project = "vllm-wheels"
version = release = version_of("vllm-wheels")
author = copyright = "vllm-wheels maintainers"  # noqa: A001 - Sphinx's name

extensions = ["myst_parser"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
exclude_patterns = ["images"]
html_theme = "furo"
html_title = "vllm-wheels"
html_copy_source = False
# A page says what the project is like now, so the date of the build would say nothing.
html_last_updated_fmt = None
