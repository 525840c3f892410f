"""Who lies in a drill, and how the words of the command line get to the liars."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from byzsgd.errors import ConfigError
from byzsgd_daemons import cli
from byzsgd_daemons.local import Daemons, Drill

FULL = Drill(
    attack="alie",
    options={"z": 1.0},
    server_attack="push",
    server_options={"scale": 0.5},
    timing="flood",
)


def test_a_record_names_every_number() -> None:
    """What a drill records is plain JSON: attacks, all their numbers, given or not, and timing."""
    assert json.loads(json.dumps(FULL.record())) == {
        "attack": "alie",
        "attack_options": {"z": 1.0, "ddof": 0.0, "sign": -1.0},
        "server_attack": "push",
        "server_attack_options": {"scale": 0.5},
        "timing": "flood",
    }
    assert Drill().record() == {
        "attack": None,
        "attack_options": {},
        "server_attack": None,
        "server_attack_options": {},
        "timing": "early",
    }


@pytest.mark.parametrize(
    ("drill", "sentence"),
    [
        (Drill(attack="ali"), "attack 'ali' of workers: did you mean alie?"),
        (Drill(server_attack="alie"), "attack 'alie' of servers"),
        (Drill(attack="alie", options={"q": 1}), "attack alie: unknown option 'q'"),
        (Drill(server_attack="push", server_options={"q": 1}), "attack push: unknown option 'q'"),
        (Drill(timing="lat"), "timing 'lat': did you mean late?"),
    ],
)
def test_wrong_words(drill: Drill, sentence: str) -> None:
    """A drill with a word that nobody knows is refused before anything starts."""
    with pytest.raises(ConfigError) as refused:
        drill.check()

    assert sentence in str(refused.value)


class Caught(Exception):
    """The words that a process would have been started with."""


def test_the_liars_hear_every_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts the liars is a command line that says all that the drill does."""

    async def spawn(self: Daemons, name: str, command: str, *words: str) -> None:
        raise Caught(command, *words)

    monkeypatch.setattr(Daemons, "_spawn", spawn)
    daemons = Daemons.__new__(Daemons)
    with pytest.raises(Caught) as caught:
        asyncio.run(daemons.start_liars(frozenset({"w1", "s4"}), FULL, tmp_path / "theta"))
    arguments = cli._parser().parse_args(caught.value.args)

    assert arguments.command is cli._adversary
    assert arguments.liars == ["s4", "w1"]
    assert (arguments.attack, arguments.server_attack) == ("alie", "push")
    assert (arguments.option, arguments.server_option) == (["z=1.0"], ["scale=0.5"])
    assert (arguments.timing, arguments.initial) == ("flood", tmp_path / "theta")


FLAGS = (
    *("--attack", "alie", "--option", "z=1", "--server-attack", "push"),
    *("--server-option", "scale=0.5", "--timing", "flood"),
)


@pytest.mark.parametrize("command", ["local", "demo"])
def test_the_command_line_of_a_drill(command: str) -> None:
    """Every field of a drill has its flag."""
    assert cli._drill(cli._parser().parse_args([command, *FLAGS])) == FULL


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--attack", "alie", "--option", "z"), "--option z: must be NAME=NUMBER"),
        (("--server-attack", "push", "--server-option", "=x"), "--server-option =x: must be"),
        (("--server-option", "scale=1"), "--server-option scale=1: there is no attack"),
        (("--option", "z=1"), "--option z=1: there is no attack to take it; name one"),
        (("--attack", "alie", "--option", "z=nan"), "attack alie: z: found nan; must be finite"),
        (("--timing", "slow"), "timing 'slow': known: early, flood, late"),
    ],
)
def test_wrong_flags(
    words: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that makes no drill ends the command with status 2 and a line that names it."""
    assert cli.main(["local", *words]) == 2
    assert sentence in capsys.readouterr().err
