"""Keys, and the files that hold them."""

import os
import stat
from pathlib import Path

import pytest
import zmq

from byzsgd.errors import ConfigError
from byzsgd.transport import keys


def test_a_pair_belongs_together_and_hides_its_secret() -> None:
    """The public key follows from the secret one, which no log can show by accident."""
    pair = keys.generate()

    assert keys.public_of(pair.secret) == pair.public
    assert pair.secret not in repr(pair)
    assert pair.public in repr(pair)
    assert keys.generate() != pair


@pytest.mark.parametrize("secret", ["", "0" * 39, "0" * 41, "~" * 40, "#" * 40, "0" * 39 + "\n"])
def test_what_is_no_key_is_refused_without_being_quoted(secret: str) -> None:
    """Wrong length, wrong characters, or characters that stand for too large a number."""
    with pytest.raises(ConfigError, match=r"^not a CURVE key: must be 40 characters of Z85$"):
        keys.public_of(secret)


def test_a_secret_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask, and what was written is read again."""
    pair, path = keys.generate(), tmp_path / "w1.key"
    umask = os.umask(0)
    try:
        keys.write_secret(path, pair.secret)
    finally:
        os.umask(umask)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.read_secret(path) == pair.secret


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    """A second key for the same file is refused, and the first one stays."""
    pair, path = keys.generate(), tmp_path / "w1.key"
    keys.write_secret(path, pair.secret)

    with pytest.raises(ConfigError, match=f"^{path}: is there already"):
        keys.write_secret(path, keys.generate().secret)
    assert keys.read_secret(path) == pair.secret


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Writing a key says what the system says, and where."""
    path = tmp_path / "missing" / "w1.key"

    with pytest.raises(ConfigError, match=f"^{path}: cannot be written: No such file"):
        keys.write_secret(path, keys.generate().secret)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """So is a folder in its place."""
    with pytest.raises(ConfigError, match=f"^{tmp_path}/none: there is no such file"):
        keys.read_secret(tmp_path / "none")
    with pytest.raises(ConfigError, match=f"^{tmp_path}: cannot be read: Is a directory"):
        keys.read_secret(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    """The message names file, mode and remedy."""
    path = tmp_path / "w1.key"
    keys.write_secret(path, keys.generate().secret)
    path.chmod(mode)

    with pytest.raises(ConfigError, match=f"^{path}: mode {mode:04o} .* chmod 600"):
        keys.read_secret(path)


def owned_by(monkeypatch: pytest.MonkeyPatch, owner: int) -> None:
    """Every open file is another user's from now on, which only root could make it."""
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        fields = list(real(descriptor))
        fields[stat.ST_UID] = owner
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", fstat)


@pytest.mark.parametrize(
    ("mode", "owner", "accepted"),
    [
        (0o400, 0, True),
        (0o440, 0, True),  # Lent: systemd's LoadCredential=, Kubernetes' fsGroup.
        (0o400, 1000, True),
        (0o440, 1000, False),  # Its owner could have kept it.
        (0o444, 0, False),
        (0o460, 0, False),
        (0o640, 0, False),
        (0o660, 0, False),
        (0o442, 0, False),
    ],
)
def test_root_may_lend_a_key_to_a_group_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, accepted: bool
) -> None:
    """Mode 0440 of root is what systemd and Kubernetes give; all else that is open is refused."""
    pair, path = keys.generate(), tmp_path / "w1.key"
    keys.write_secret(path, pair.secret)
    path.chmod(mode)
    owned_by(monkeypatch, owner)

    if accepted:
        assert keys.read_secret(path) == pair.secret
        return
    with pytest.raises(ConfigError, match=f"^{path}: mode {mode:04o} lets others at"):
        keys.read_secret(path)


@pytest.mark.parametrize(
    "content",
    ["", "\n", "0" * 39, "0" * 41, "0" * 40 + "\n\n", "é" * 20, "0" * 1000, " " + "0" * 39],
)
def test_a_file_that_holds_no_key_is_refused_without_being_quoted(
    tmp_path: Path, content: str
) -> None:
    """Exactly 40 characters of Z85, and a line's end if any."""
    path = tmp_path / "w1.key"
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(ConfigError, match=f"^{path}: holds not a CURVE key") as problem:
        keys.read_secret(path)
    assert not content.strip() or content.strip() not in str(problem.value)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_key_file_may_end_in_a_line_end_or_not(tmp_path: Path, end: str) -> None:
    """Files made by other tools are as good."""
    _, secret = zmq.curve_keypair()
    path = tmp_path / "w1.key"
    path.write_bytes(secret + end.encode())
    path.chmod(0o600)

    assert keys.read_secret(path) == secret.decode()
