"""The blocks of code in the documents, what their commands are, and which of them tests can try.

A comment above a block says why it cannot be tried, and another one what is done unseen:

    <!-- not tried: it takes an hour -->
    <!-- try
    commands
    -->
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMES = [str(document.relative_to(ROOT)) for document in DOCUMENTS]

SHELL = frozenset({"bash", "console", "sh", "shell"})
COMMENT = re.compile(r"<!-- (not tried|try\b)(.*?)-->", re.DOTALL)

ELSEWHERE = {
    "apt-get": "it changes the machine",
    "docker": "it needs a container engine",
    "docker-compose": "it needs a container engine",
    "git": "it is done in a clone already",
    "helm": "it needs a Kubernetes cluster",
    "journalctl": "it needs a booted systemd",
    "kubectl": "it needs a Kubernetes cluster",
    "make": "each target has tests of its own",
    "pip": "it installs packages",
    "podman": "it needs a container engine",
    "podman-compose": "it needs a container engine",
    "scp": "it needs other machines",
    "ssh": "it needs other machines",
    "sudo": "it needs root",
    "systemctl": "it needs a booted systemd",
    "systemd-creds": "it needs a booted systemd",
    "uv": "it installs packages",
}
"""Programs that no test of a document starts, and why."""

SYSTEM = re.compile(r"/(?!dev/null)\w+")
"""The start of an absolute path: a block with one is not tried, as it might write there."""

FOREVER = re.compile(r"\bbyzsgd (?:adversary|server|worker)\b(?!.*(?<!&)&(?!&))|--watch\b")
"""Commands that run until they are stopped, in the foreground."""

KEYWORDS = frozenset(
    ["!", "do", "elif", "else", "exec", "if", "then", "time", "until", "while", "{"]
)
OPERATOR = re.compile(r"[();<>|&]+")


@dataclass(frozen=True)
class Block:
    """A block of code, or commands of a comment."""

    document: Path
    line: int
    """Of its first line in the document, from 1."""
    language: str
    text: str
    why_not: str = ""
    """Why it is not tried, in the words of the comment above it."""

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def reason(self) -> str:
        """Why it is not tried; empty where it is, or is no commands."""
        if self.why_not or self.language not in SHELL:
            return self.why_not
        for words in commands(self.text):
            for word in words:
                if reason := ELSEWHERE.get(word.rpartition("/")[2]):
                    return reason
                if SYSTEM.match(word):
                    return f"{word} is of the machine"
        return ""


def blocks(document: Path) -> list[Block]:
    """All of a document, in order.

    Raises:
        ValueError: If a comment gives no reason, or stands above no block.
    """
    found = []
    why_not, where = "", 0
    for token in MarkdownIt().parse(document.read_text()):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "fence":
            language = (token.info.split() or [""])[0]
            found.append(Block(document, line + 1, language, token.content, why_not))
            why_not = ""
        elif token.type != "html_block" and token.nesting >= 0 and why_not:
            raise ValueError(f"{document}:{where}: no block stands below this comment")
        for kind, text in COMMENT.findall(token.content) if token.type == "html_block" else ():
            if kind == "try":
                found.append(Block(document, line + 1, "sh", text.lstrip("\n")))
                continue
            why_not, where = text.removeprefix(":").strip(), line
            if not why_not:
                raise ValueError(f"{document}:{line}: not tried, and no reason")
    return found


def shell(document: Path) -> list[Block]:
    """Those of a document that are commands, of comments too."""
    return [block for block in blocks(document) if block.language in SHELL]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command in some lines for a shell, without redirections."""
    pending = ""
    for line in text.replace("\\\n", " ").splitlines():
        pending += line
        lexer = shlex.shlex(pending, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        try:
            tokens = list(lexer)
        except ValueError:  # A quotation that goes on in the next line.
            pending += "\n"
            continue
        pending = ""
        yield from _split(tokens)


def _split(tokens: list[str]) -> Iterator[list[str]]:
    """The commands among the words and operators of a line."""
    words: list[str] = []
    previous = ""
    for token in tokens:
        if OPERATOR.fullmatch(previous) and set(previous) & {"<", ">"}:
            pass  # Where output goes, or input comes from.
        elif not OPERATOR.fullmatch(token):
            words.append(token)
        elif {"<", ">"} & {*token}:
            words = words[:-1] if words and words[-1].isdigit() else words
        else:
            yield from _command(words)
            words = []
        previous = token
    yield from _command(words)


def _command(words: list[str]) -> Iterator[list[str]]:
    while words and words[0] in KEYWORDS:
        words = words[1:]
    if words:
        yield words


def whole_lines(text: str) -> Iterator[tuple[int, str]]:
    """What a shell reads at once, one line or the several of a loop, with their offset from 0."""
    read: list[str] = []
    for number, line in enumerate(text.splitlines()):
        read.append(line)
        done = subprocess.run(
            ["bash", "-n", "-c", "\n".join(read)], capture_output=True, text=True, check=False
        )
        if line.endswith("\\") or done.returncode or "here-document" in done.stderr:
            continue
        if "".join(read).strip():
            yield number + 1 - len(read), "\n".join(read)
        read = []
    if read:
        raise ValueError(f"no commands: {read}")
