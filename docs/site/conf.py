"""The documentation as a site: `make docs`. Pages are the Markdown files as they stand.

Sphinx's source folder is the root of the repository, so that a link that works on a forge works
here. The order of pages is that of docs/README.md. Nothing is fetched, and a warning is an error.
"""

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import BashLexer, TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

from byzsgd import __version__

project = "byzsgd"
release = __version__
html_title = f"byzsgd {__version__}"
html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_additional_pages = {"index": "index.html"}
templates_path = ["templates"]

root_doc = "README"
CONTENTS = "docs/README"
include_patterns = ["*.md", "docs/*.md", "docs/site/*.rst"]
exclude_patterns = [".*", "build", "dist", "run", "tests"]  # Not to be searched for pages.
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
highlight_language = "text"
smartquotes = False  # Pages say what the files say.

myst_heading_anchors = 4
myst_heading_slug_func = "github"

add_module_names = False
autodoc_mock_imports = ["torch"]  # Seconds, for a few names.
autodoc_default_options = {"members": True, "no-value": True, "special-members": "__call__"}
autodoc_member_order = "bysource"
autodoc_type_aliases = {name: name for name in ("Examples", "Kappa", "Rows", "Vector", "Vectors")}
autodoc_typehints_format = "short"

FOLDERS = "linked_folders"
"""Where a page's metadata names the folders that it links to."""

UNTRACKED = frozenset({"__pycache__", "targets"})
LANGUAGES = {".json": "json", ".py": "python", ".service": "ini", ".toml": "toml", ".yml": "yaml"}


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Give the first page the whole table of contents: each heading and its links."""
    if page != root_doc:
        return
    text = (Path(app.srcdir) / f"{CONTENTS}.md").read_text()
    parts = [("All pages", CONTENTS)]
    for part in text.split("\n## ")[1:]:
        caption, _, links = part.partition("\n")
        targets = re.findall(r"\]\(([^):#]+)\.(?:md|rst)\)", links)
        pages = [os.path.normpath(f"docs/{target}") for target in targets]
        parts.append((caption, "\n".join(each for each in pages if each != root_doc)))
    for caption, pages in parts:
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def link_folders(app: Sphinx, document: nodes.document) -> None:
    """A link to a folder of the repository leads to a page that shows what is in it."""
    here, root = app.env.docname, Path(app.srcdir).resolve()
    found = set()
    for link in document.findall(pending_xref):
        folder = (root / here).parent / link["reftarget"]
        if link["reftype"] != "myst" or link["refdomain"] or not folder.is_dir():
            continue
        name = f"files/{folder.resolve().relative_to(root)}"
        found.add(name)
        address = app.builder.get_relative_uri(here, name)
        link.replace_self(nodes.reference("", "", *link.children, refuri=address, internal=True))
    app.env.metadata[here][FOLDERS] = sorted(found)


def folder_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The pages of all folders that are linked to."""
    for name in sorted({each for page in app.env.metadata.values() for each in page[FOLDERS]}):
        title = name.removeprefix("files/")
        parts = [f"<h1>{html.escape(title)}</h1>"]
        for file in sorted((Path(app.srcdir) / title).rglob("*")):
            if file.is_file() and not {*file.parts} & UNTRACKED:
                language = LANGUAGES.get(file.suffix, "text")
                shown = app.builder.highlighter.highlight_block(file.read_text(), language)
                parts.append(f"<h2>{html.escape(str(file.relative_to(app.srcdir)))}</h2>{shown}")
        yield name, {"title": title, "body": "\n".join(parts)}, "page.html"


def setup(app: Sphinx) -> None:
    """What Sphinx calls first."""
    app.add_lexer("console", BashLexer)  # Ours are commands without prompts and answers.
    app.add_lexer("hex", TextLexer)
    app.connect("source-read", add_contents)
    app.connect("doctree-read", link_folders)
    app.connect("html-collect-pages", folder_pages)
