"""Scripts that let a shell complete byzsgd's words; the package shtab writes them."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from byzsgd.errors import ConfigError


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """What a shell is to read, so that it completes commands, flags and paths.

    Args:
        parser: Of the whole command line; flags that take a path are marked as such.
        shell: ``bash``, ``zsh`` or ``fish``.

    Raises:
        ConfigError: If shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise ConfigError("completion: needs shtab; pip install 'byzsgd[completion]'") from None
    for action in _actions(parser):
        if action.type is Path:
            folder = action.metavar == "FOLDER"
            action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
    text: str = shtab.complete(parser, shell)
    return text


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every flag and word of a parser and of its commands, however deep."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)
