"""``byzsgd keys``: a new key for a node changes one value of the cluster file and one key file."""

import difflib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from byzsgd.cluster import Cluster
from byzsgd.errors import ConfigError
from byzsgd.transport import keys
from byzsgd_daemons import init, rotate
from byzsgd_daemons.cli import main
from byzsgd_daemons.config import Settings, read_cluster, secret_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A cluster file with comments, and the keys beside it."""
    plan = init.Plan(task="digits")
    addresses = init.Addresses.consecutive(plan, "127.0.0.1", 7000, 9100)
    return init.create(tmp_path / "cluster", plan, addresses)


def settings(file: Path, identity: str = "s0") -> Settings:
    return Settings(id=identity, cluster=file)


def public(file: Path, identity: str = "s0") -> str:
    node = read_cluster(file).node(identity)
    assert node is not None
    return node.public_key


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("identity", ["s0", "w6", "operator"])
def test_one_line_of_the_cluster_file_changes(file: Path, identity: str) -> None:
    """Comments, order and every other character stay; the new keys belong together."""
    before, old = file.read_text(), public(file, identity)
    rotation = rotate.rotate(settings(file, identity))

    new = public(file, identity)
    assert new != old
    lines = difflib.ndiff(before.splitlines(), file.read_text().splitlines())
    changed = [line for line in lines if line[0] in "+-"]
    assert changed == [f'- public_key = "{old}"', f'+ public_key = "{new}"']
    assert rotation.node.public_key == new
    node = read_cluster(file).node(identity)
    assert node is not None
    assert keys.public_of(secret_key(node, settings(file, identity))) == new


def test_the_old_key_is_kept_and_nothing_else_is_left(file: Path) -> None:
    """The new secret is for its owner alone, whatever the umask."""
    folder, key = file.parent / "keys", file.parent / "keys" / "s0.key"
    secret, before = key.read_text(), set(tree(file.parent))
    umask = os.umask(0)
    try:
        rotation = rotate.rotate(settings(file))
    finally:
        os.umask(umask)

    assert rotation.old == folder / "s0.key.old"
    assert rotation.old.read_text() == secret
    assert key.stat().st_mode & 0o777 == 0o600
    assert set(tree(file.parent)) == before | {rotation.old}


def test_without_the_old_key_there_is_none_to_keep(file: Path) -> None:
    """It may be lost, or on its machine."""
    (file.parent / "keys" / "w0.key").unlink()
    rotation = rotate.rotate(settings(file, "w0"))

    assert rotation.old is None
    assert keys.public_of(keys.read_secret(rotation.key)) == public(file, "w0")


def test_mode_and_link_of_the_cluster_file_stay(file: Path, tmp_path: Path) -> None:
    """Daemons of other users read it, and a name for it goes on to name it."""
    file.chmod(0o664)
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    umask = os.umask(0o077)
    try:
        rotate.rotate(Settings(id="s0", cluster=link, key=file.parent / "keys" / "s0.key"))
    finally:
        os.umask(umask)

    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o664
    assert public(link) == keys.public_of(keys.read_secret(file.parent / "keys" / "s0.key"))


def written(node: str, file: Path) -> Cluster:
    """What a rotation makes of a file: only that node's key differs."""
    before = read_cluster(file)
    rotation = rotate.rotate(settings(file, node))
    after = read_cluster(file)
    nodes = tuple(rotation.node if each.id == node else each for each in before.nodes)
    assert after == replace(before, nodes=nodes)
    return after


@pytest.mark.parametrize(
    "line",
    [
        "public_key = '{}'",
        '"public_key"="{}"   # of s0, not "{}"',
        '# was public_key = "{}"\npublic_key = """{}"""',
    ],
)
def test_a_key_is_found_however_it_is_written(file: Path, line: str) -> None:
    """Comments that name it as well are left alone."""
    old = public(file)
    text = file.read_text().replace(f'public_key = "{old}"', line.replace("{}", old))
    file.write_bytes(f'# s0 has "{old}"\r\n{text}'.encode())
    written("s0", file)

    assert file.read_bytes().startswith(f'# s0 has "{old}"\r\n'.encode())
    assert file.read_text().count(old) == line.count("{}")


@pytest.mark.parametrize("new", ["a", "z"])
@pytest.mark.parametrize("first", ["1", "a"])
def test_a_key_that_is_not_written_plainly_is_left_to_the_operator(
    file: Path, monkeypatch: pytest.MonkeyPatch, first: str, new: str
) -> None:
    r"""Nothing is changed then, also where the last digit of ``\u0031`` is the key's first.

    Whether the new key's first makes that another escape (``\u003a``) or none (``\u003z``).
    """
    old = public(file)
    escaped = f"\\u{ord(first):04x}{old[1:]}"
    file.write_text(file.read_text().replace(old, escaped))
    before, pair = tree(file.parent), keys.generate()
    monkeypatch.setattr(keys, "generate", lambda: replace(pair, public=f"{new}{pair.public[1:]}"))

    with pytest.raises(ConfigError, match=f"^{file}: cannot find the public_key of s0"):
        rotate.rotate(settings(file))
    assert tree(file.parent) == before


def test_an_escape_may_end_in_the_new_keys_first(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    r"""``\u0031`` becomes ``\u0037`` where the old key begins with 1, and the new one with 7."""
    old = public(file)
    file.write_text(file.read_text().replace(old, f"\\u0031{old[1:]}"))
    pair = keys.generate()
    pair = replace(pair, public=f"7{pair.public[1:]}")
    monkeypatch.setattr(keys, "generate", lambda: pair)

    written("s0", file)
    assert f"\\u003{pair.public}" in file.read_text()


def test_an_unknown_node_changes_nothing(file: Path) -> None:
    """Those that are known are named."""
    before = tree(file.parent)
    with pytest.raises(ConfigError, match="no node s9; known: operator, s0, s1"):
        rotate.rotate(settings(file, "s9"))
    assert tree(file.parent) == before


def test_a_disk_that_takes_no_cluster_file_leaves_all_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new secret is not left behind, and the old one is in its place."""
    before, real = tree(file.parent), Path.replace

    def full(path: Path, target: Path) -> Path:
        if target == file:
            raise OSError(28, "No space left on device", str(target))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        rotate.rotate(settings(file))
    assert tree(file.parent) == before


def test_what_was_cut_short_is_done_once_more(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends between the cluster file and the key: the key of before is not lost."""
    key, real = file.parent / "keys" / "s0.key", Path.replace
    secret = key.read_text()

    def killed(path: Path, target: Path) -> Path:
        if path.name == "s0.key.new":
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        rotate.rotate(settings(file))
    monkeypatch.undo()
    rotate.rotate(settings(file))

    assert (file.parent / "keys" / "s0.key.old").read_text() == secret
    assert keys.public_of(keys.read_secret(key)) == public(file)


def test_the_commands_say_what_to_do(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who must be told first, and what then; never a secret."""
    assert main(["keys", "rotate", str(file), "s0"]) == 0
    server = capsys.readouterr().out
    assert main(["keys", "rotate", str(file), "w0"]) == 0
    worker = capsys.readouterr().out

    assert "to every other node, and let the daemons read it again" in server
    assert "start s0 again" in server
    assert "to every server, and let the daemons read it again" in worker
    assert (file.parent / "keys" / "s0.key").read_text().strip() not in server

    assert main(["keys", "show", str(file.parent / "keys" / "s0.key")]) == 0
    assert capsys.readouterr().out == f"{public(file)}\n"


def test_a_new_node_gets_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its public one is printed; no key is ever overwritten."""
    path = tmp_path / "w7.key"
    assert main(["keys", "new", str(path)]) == 0
    assert capsys.readouterr().out == f"{keys.public_of(keys.read_secret(path))}\n"

    secret = path.read_text()
    assert main(["keys", "new", str(path)]) == 2
    assert path.read_text() == secret


def test_who_is_not_admitted_is_to_be_let_in_again(file: Path) -> None:
    """A node that was kept out until it had a new key."""
    file.write_text(file.read_text().replace('id = "s0"', 'id = "s0"\nadmitted = false'))
    rotation = rotate.rotate(settings(file))

    assert "take 'admitted = false' out of the entry of s0" in rotate.next_steps(rotation, file)
