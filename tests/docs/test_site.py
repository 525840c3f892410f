"""The documentation as a site: whole, made and read without a network, no link is dead."""

import importlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from markdown_it import MarkdownIt
from tests.docs.blocks import DOCUMENTS, ROOT

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("sphinx", "furo", "myst_parser"))),
    reason="NOT TESTED: no Sphinx here; make docs",
)

OFFLINE = """
import socket, sys
socket.socket.connect = socket.getaddrinfo = None
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""

EXTERNAL = re.compile(r"(?:https?:)?//")
FETCHING = re.compile(r"""(?:url\(|@import )\s*["']?(?:https?:)?//""")
LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a browser fetches by itself."""


class Page(HTMLParser):
    """What a page has ids for, links to, and loads."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given["id"]} if "id" in given else set()
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.loads += [given[LOADED[tag]]] if given.get(LOADED.get(tag, "")) else []


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The site of a folder, made as `make docs` makes it, by a Python without a network."""
    words = ["--quiet", "--fail-on-warning", "-c", ROOT / "docs" / "site", "-d", out / "doctrees"]
    return subprocess.run(
        [sys.executable, "-c", OFFLINE, *words, source, out / "site"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Every page of our own site."""
    out = tmp_path_factory.mktemp("docs")
    done = build(ROOT, out)
    assert (done.returncode, done.stderr) == (0, "")
    return {file: Page(file) for file in sorted((out / "site").rglob("*.html"))}


def dead(pages: dict[Path, Page]) -> Iterator[tuple[str, str]]:
    """Links to files that are not there, or to no place on their page; each with its page."""
    for file, page in pages.items():
        for link in page.links + page.loads:
            path, place = urldefrag(unquote(link))
            if re.match(r"[a-z]+:", path) or EXTERNAL.match(path):
                continue
            target = (file.parent / re.sub(r"\?.*", "", path)).resolve() if path else file
            known = pages[target].ids if target in pages else set()
            if not target.exists() or (place and place not in known and target in pages):
                yield file.name, link


def places(document: Path) -> tuple[set[str], list[str]]:
    """The places on a document as a forge calls them, and all that it links to."""
    from mdit_py_plugins.anchors import anchors_plugin  # Of the site's tools.

    reader = MarkdownIt().enable("table").use(anchors_plugin, max_level=6)
    tokens = reader.parse(document.read_text())
    links = [child.attrGet("href") for token in tokens for child in token.children or ()
             if child.type == "link_open"]  # fmt: skip
    return {str(token.attrGet("id")) for token in tokens if token.type == "heading_open"}, links


def test_places_on_pages_are_those_of_a_forge() -> None:
    """MyST also knows a place by a name of its own, which leads nowhere on a forge."""
    known = {document: places(document) for document in DOCUMENTS}
    found = [
        (document.name, link)
        for document, (_, links) in known.items()
        for path, place in map(urldefrag, links)
        for link, target in [(f"{path}#{place}", (document.parent / path).resolve())]
        if place and not EXTERNAL.match(link)
        and place not in known.get(target if path else document, [()])[0]
    ]  # fmt: skip
    assert found == []


def test_every_link_of_the_site_leads_somewhere(pages: dict[Path, Page]) -> None:
    """Those that Sphinx makes, too: the build itself was without a warning."""
    assert len(pages) > 20
    assert list(dead(pages)) == []


def test_pages_load_nothing_from_elsewhere(pages: dict[Path, Page]) -> None:
    """No font, style, script or image: who reads it needs no network, and nobody is told."""
    [site] = [file.parent for file in pages if file.name == "index.html"]
    styles = {file: file.read_text() for file in site.rglob("*.css")}

    assert styles
    assert [load for page in pages.values() for load in page.loads if EXTERNAL.match(load)] == []
    assert [file for file, text in styles.items() if FETCHING.search(text)] == []


@pytest.mark.parametrize(
    ("page", "module"), [("aggregation", "byzsgd.aggregation"), ("tasks", "byzsgd.tasks")]
)
def test_the_reference_is_of_all_public_names_and_no_other(
    pages: dict[Path, Page], page: str, module: str
) -> None:
    """Those of ``__all__``, with what they have that is public."""
    [ids] = [each.ids for file, each in pages.items() if file.match(f"docs/site/{page}.html")]
    named = defaultdict(set)
    for each in filter(re.compile(r"byzsgd\.").match, ids):
        place, _, name = each.rpartition(".")
        named[place].add(name)

    assert named[module] == {*importlib.import_module(module).__all__}
    private = {name for names in named.values() for name in names if name.startswith("_")}
    assert private <= {"__call__"}


def test_dead_links_are_errors(tmp_path: Path) -> None:
    """To pages, places on them, files, folders and images; and pages that contents lack."""
    links = ["docs/README.md#here", "docs/README.md#nowhere", "#one", "#no-place", "docs/none.md",
             "deploy/none.yml", "none/", "docs", "README.md"]  # fmt: skip
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("# All\n\n## Here\n\n- [one](../README.md)\n")
    (tmp_path / "docs" / "lost.md").write_text("# Lost\n")
    (tmp_path / "README.md").write_text(
        "# One\n\n![x](none.png)\n" + "".join(f"[x]({link})\n" for link in links)
    )
    done = build(tmp_path, tmp_path / "out")
    found = done.stderr.splitlines()
    wrong = [
        "nowhere",
        "no-place",
        "docs/none.md",
        "deploy/none.yml",
        "none/",
        "none.png",
        "lost.md",
    ]

    assert done.returncode != 0
    assert [[what in line for line in found].count(True) for what in wrong] == [1] * len(wrong)
    assert len(found) == len(wrong), done.stderr
