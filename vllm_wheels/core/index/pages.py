"""Tells a page of an index from other pages that come with status 200 as well, such as a captive portal's."""

from urllib.parse import urlsplit

from pypi_simple import ProjectPage, UnsupportedRepoVersionError


class ForeignPageError(ValueError):
    """A page is none of an index: taken for one, it would say that a project has no files."""


UNREADABLE = (ValueError, RecursionError, UnsupportedRepoVersionError)
"""What reading a page raises that is none of an index, or of a later one; brackets within brackets recurse."""


def of_index(page: ProjectPage) -> ProjectPage:
    """The page, if it names the version of the simple API (PEP 629) or a file of a project.

    Raises:
        ForeignPageError: it does neither.
        ValueError: it links to what is no URL.
    """
    if page.repository_version is None and not any(package.version for package in page.packages):
        message = "it names neither a file nor the version of the simple API"
        raise ForeignPageError(message)
    for package in page.packages:
        urlsplit(package.url)
    return page
