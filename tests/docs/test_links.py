"""Links of the documentation lead to files and headings that exist."""

import re

import pytest
import yaml
from pages import PAGES, ROOT, anchors, links, read

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@every_page
def test_every_link_leads_to_a_file(page):
    for link in links(page):
        path = link.partition("#")[0]
        assert (page.parent / path).exists(), link


@every_page
def test_every_anchor_is_a_heading(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        if anchor:
            assert anchor in anchors(page.parent / path if path else page), link


@every_page
def test_every_named_file_exists(page):
    """CHANGELOG.md names files that were renamed."""
    pattern = r"`(?:python )?((?:textdiff|image|scripts|tests|configs|docs)/[\w/.-]+)`"
    for path in re.findall(pattern, read(page)):
        assert page.name == "CHANGELOG.md" or (ROOT / path).exists(), path


@every_page
def test_pages_of_docs_link_within_docs(page):
    """MkDocs serves nothing else."""
    if page.parent.name == "docs":
        assert not [link for link in links(page) if link.startswith("..")]


def test_navigation_lists_every_page_of_docs():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = [path for entry in yaml.safe_load(text)["nav"] for path in entry.values()]
    assert sorted(listed) == sorted(page.name for page in PAGES if page.parent.name == "docs")


def test_readme_links_every_page_of_docs():
    targets = links(ROOT / "README.md")
    for page in PAGES:
        if page.parent.name == "docs" and page.name != "index.md":
            assert f"docs/{page.name}" in targets


def test_every_picture_is_shown():
    shown = {link for page in PAGES for link in re.findall(r"pictures/[\w-]+\.png", read(page))}
    assert shown == {f"pictures/{path.name}" for path in (ROOT / "docs/pictures").iterdir()}
