"""The cluster file: its bounds, all problems in one report, digests that name what differs."""

import datetime
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzsgd.cluster import (
    MEMBER_TEXTS,
    NODES_MAX,
    Cluster,
    Member,
    Role,
    WireType,
    differing_keys,
    nearest,
)
from byzsgd.errors import ClusterError

KEY = "0123456789abcdefghijABCDEFGHIJ.-:+=^!/*?"


def key_of(number: int) -> str:
    return f"{number:05}" + KEY[5:]


def file(
    servers: int = 5, workers: int = 7, f_servers: int = 1, f_workers: int = 2, **changes: Any
) -> dict[str, Any]:
    """A cluster file as a TOML parser returns it, right but for what the test changes."""
    nodes = [
        {
            "id": f"s{n}",
            "role": "server",
            "public_key": key_of(n),
            "address": f"10.0.0.{n}:7000",
            "http": f"10.0.0.{n}:9100",
        }
        for n in range(1, servers + 1)
    ]
    nodes += [
        {"id": f"w{n}", "role": "worker", "public_key": key_of(100 + n)}
        for n in range(1, workers + 1)
    ]
    mapping = {"f_servers": f_servers, "f_workers": f_workers, "task": "digits", "nodes": nodes}
    return mapping | changes


def without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def with_node(**changes: Any) -> dict[str, Any]:
    """A cluster file whose first server is changed."""
    mapping = file()
    mapping["nodes"][0] |= changes
    return mapping


def problems(mapping: Mapping[str, Any], *, keys: bool = True) -> tuple[str, ...]:
    with pytest.raises(ClusterError) as error:
        Cluster.from_mapping(mapping, keys=keys)
    assert str(error.value) == "; ".join(error.value.problems)
    return error.value.problems


# What is right


def test_what_the_file_leaves_out_has_the_documented_default() -> None:
    """Quorums are n - f, T is 1, the rule is MDA, and momentum is on."""
    cluster = Cluster.from_mapping(file())

    assert (cluster.server_quorum, cluster.worker_quorum) == (4, 5)
    defaults = {f.name: getattr(cluster, f.name) for f in fields(Cluster)}
    names = ("nodes", "f_servers", "f_workers", "server_quorum", "worker_quorum", "task")
    assert {name: value for name, value in defaults.items() if name not in names} == {
        "task_options": {},
        "variant": "asynchronous",
        "round_timeout": 2.0,
        "rule": "mda",
        "pre_steps": (),
        "gather_period": 1,
        "overlapped_gather": False,
        "wire_type": "float32",
        "learning_rate": 0.1,
        "learning_rate_decay_steps": 0.0,
        "worker_momentum": 0.9,
        "batch_size": 32,
        "seed": 1,
        "steps": 0,
    }


@pytest.mark.parametrize("wire_type", WireType)
def test_vectors_are_rounded_between_servers_and_workers_alone(wire_type: WireType) -> None:
    """Whoever of them sends; servers' votes and an operator's model are float32."""
    cluster = Cluster.from_mapping(file(wire_type=wire_type.value))
    rounded = {(Role.SERVER, Role.WORKER), (Role.WORKER, Role.SERVER)}

    assert cluster.wire_type is wire_type
    for one, other in product(
        (Role.SERVER, Role.OPERATOR, Role.WORKER), (Role.SERVER, Role.WORKER)
    ):
        if (one, other) == (Role.OPERATOR, Role.WORKER) or one is other is Role.WORKER:
            continue  # They say nothing to one another.
        expected = wire_type if (one, other) in rounded else WireType.FLOAT32
        assert cluster.wire_type_between(one, other) is expected


def test_nodes_are_found_by_identity_and_role() -> None:
    """Servers and workers come sorted, whatever the order of the file."""
    mapping = file()
    mapping["nodes"].reverse()
    mapping["nodes"].append({"id": "op", "role": "operator", "public_key": key_of(999)})
    cluster = Cluster.from_mapping(mapping)

    assert cluster.servers == ("s1", "s2", "s3", "s4", "s5")
    assert cluster.workers == ("w1", "w2", "w3", "w4", "w5", "w6", "w7")
    assert (cluster.n_servers, cluster.n_workers) == (5, 7)
    assert [cluster.role(who) for who in ("s1", "w1", "op", "x")] == [*Role, None]
    assert cluster.node("s2") == Member(
        id="s2",
        role=Role.SERVER,
        public_key=key_of(2),
        address="10.0.0.2:7000",
        http="10.0.0.2:9100",
    )
    assert cluster.node("x") is None


def test_a_server_takes_two_ports_in_a_row() -> None:
    """Models are published at the address, and the next port takes requests."""
    server = Member(id="s1", role=Role.SERVER, address="[::1]:7000")

    assert server.publish_endpoint == ("[::1]", 7000)
    assert server.request_endpoint == ("[::1]", 7001)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_one_trusted_server_is_enough(workers: int) -> None:
    """The vanilla cluster: one server of which none may lie, and any number of workers."""
    cluster = Cluster.from_mapping(file(1, workers, 0, 0))

    assert (cluster.server_quorum, cluster.worker_quorum) == (1, workers)


@pytest.mark.parametrize(
    ("servers", "workers", "f_servers", "f_workers"),
    [(2, 1, 0, 0), (5, 4, 1, 1), (8, 7, 2, 2), (11, 10, 3, 3), (5, 1, 1, 0), (1, 4, 0, 1)],
)
def test_the_smallest_clusters_are_taken(
    servers: int, workers: int, f_servers: int, f_workers: int
) -> None:
    """n_ps = 3 f_ps + 2 and n_w = 3 f_w + 1 suffice, and the default quorums hold their bounds."""
    Cluster.from_mapping(file(servers, workers, f_servers, f_workers))


def test_quorums_may_be_anywhere_between_their_bounds() -> None:
    """2 f_ps + 2 <= q_ps <= n_ps - f_ps, and 2 f_w + 1 <= q_w <= n_w - f_w."""
    for server_quorum in (4, 5, 6, 7):
        for worker_quorum in (5, 6, 7, 8):
            quorums = {"server_quorum": server_quorum, "worker_quorum": worker_quorum}
            cluster = Cluster.from_mapping(file(8, 10, 1, 2, **quorums))
            assert (cluster.server_quorum, cluster.worker_quorum) == (server_quorum, worker_quorum)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gather_period", "auto"),
        ("gather_period", 2**53),
        ("learning_rate", 1),
        ("learning_rate", 1e-9),
        ("learning_rate_decay_steps", 0),
        ("worker_momentum", 0),
        ("worker_momentum", 0.999),
        ("batch_size", 1),
        ("seed", 0),
        ("seed", 2**53),
        ("steps", 0),
        ("task_options", {"hidden": 8, "name": "x", "noise": 0.5, "wide": True}),
    ],
)
def test_values_at_the_limits_are_taken(key: str, value: object) -> None:
    """Each kind of value that the documentation promises, at its ends."""
    assert getattr(Cluster.from_mapping(file(**{key: value})), key) == value


@pytest.mark.parametrize(
    "address", ["localhost:1", "a.b-c.example:65534", "[::1]:7000", "10.0.0.1:07000"]
)
def test_addresses_are_names_or_numbers_with_a_port(address: str) -> None:
    """Host names, IPv4, and IPv6 in brackets."""
    cluster = Cluster.from_mapping(with_node(address=address))

    assert cluster.nodes[0].address == address


# What is wrong


@pytest.mark.parametrize(
    ("numbers", "changes", "expected"),
    [
        (
            (4, 7, 1, 2),
            {},
            (
                "f_servers: n_ps >= 3 f_ps + 2, but 4 < 5 (f_ps = 1)",
                "server_quorum: q_ps >= 2 f_ps + 2, but 3 < 4",
            ),
        ),
        (
            (5, 6, 1, 2),
            {},
            (
                "f_workers: n_w >= 3 f_w + 1, but 6 < 7 (f_w = 2)",
                "worker_quorum: q_w >= 2 f_w + 1, but 4 < 5",
            ),
        ),
        ((5, 7, 1, 2), {"server_quorum": 3}, ("server_quorum: q_ps >= 2 f_ps + 2, but 3 < 4",)),
        ((5, 7, 1, 2), {"server_quorum": 5}, ("server_quorum: q_ps <= n_ps - f_ps, but 5 > 4",)),
        ((5, 7, 1, 2), {"worker_quorum": 4}, ("worker_quorum: q_w >= 2 f_w + 1, but 4 < 5",)),
        ((5, 7, 1, 2), {"worker_quorum": 6}, ("worker_quorum: q_w <= n_w - f_w, but 6 > 5",)),
        ((1, 1, 0, 0), {"server_quorum": 2}, ("server_quorum: q_ps <= n_ps - f_ps, but 2 > 1",)),
        (
            (1, 4, 1, 1),
            {},
            (
                "f_servers: n_ps >= 3 f_ps + 2, but 1 < 5 (f_ps = 1)",
                "server_quorum: q_ps >= 2 f_ps + 2, but 0 < 4",
            ),
        ),
        (
            (5, 0, 1, 0),
            {},
            (
                "f_workers: n_w >= 3 f_w + 1, but 0 < 1 (f_w = 0)",
                "worker_quorum: q_w >= 2 f_w + 1, but 0 < 1",
            ),
        ),
    ],
)
def test_a_violated_bound_is_named_with_its_numbers(
    numbers: tuple[int, int, int, int], changes: dict[str, int], expected: tuple[str, ...]
) -> None:
    """Key, inequality and both sides."""
    assert problems(file(*numbers, **changes)) == expected


def test_all_violated_bounds_are_reported_at_once() -> None:
    """Six bounds, and a number that is out of range besides, in one report."""
    found = problems(file(2, 2, 1, 1, server_quorum=3, worker_quorum=2, batch_size=0))

    assert found == (
        "batch_size: found 0; must be an integer from 1 to 2^53",
        "f_servers: n_ps >= 3 f_ps + 2, but 2 < 5 (f_ps = 1)",
        "f_workers: n_w >= 3 f_w + 1, but 2 < 4 (f_w = 1)",
        "server_quorum: q_ps >= 2 f_ps + 2, but 3 < 4",
        "server_quorum: q_ps <= n_ps - f_ps, but 3 > 1",
        "worker_quorum: q_w >= 2 f_w + 1, but 2 < 3",
        "worker_quorum: q_w <= n_w - f_w, but 2 > 1",
    )


def test_bounds_are_not_guessed_where_their_numbers_are_unknown() -> None:
    """A wrong f says nothing of n."""
    assert problems(file(f_servers="one")) == (
        "f_servers: found 'one'; must be an integer from 0 to 2^53",
    )


HUGE = pytest.param(2**100_000, id="huge")
"""Python refuses to print it, pytest included."""

INTEGERS = {"f_servers": 0, "f_workers": 0, "server_quorum": 1, "worker_quorum": 1} | {
    "gather_period": 1,
    "batch_size": 1,
    "seed": 0,
    "steps": 0,
}


@pytest.mark.parametrize(("key", "minimum"), INTEGERS.items())
@pytest.mark.parametrize("value", [True, False, 1.0, "1", -1, [1], 2**53 + 1, HUGE])
def test_integers_are_integers_within_limits(key: str, minimum: int, value: object) -> None:
    """A boolean or a float is none, however equal; and no report prints a number without end."""
    [problem] = problems(file(**{key: value}))

    assert problem.startswith(f"{key}: found ")
    assert f"; must be an integer from {minimum} to 2^53" in problem
    assert len(problem) < 200


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("learning_rate", 0.0, "a number above 0"),
        ("learning_rate", -1, "a number above 0"),
        ("learning_rate", math.inf, "a number above 0"),
        ("learning_rate", math.nan, "a number above 0"),
        ("learning_rate", True, "a number above 0"),
        ("learning_rate", "0.1", "a number above 0"),
        pytest.param("learning_rate", 2**100_000, "a number above 0", id="huge"),
        ("learning_rate_decay_steps", -0.5, "a number at least 0"),
        ("worker_momentum", 1.0, "a number at least 0 and below 1"),
        ("worker_momentum", -0.1, "a number at least 0 and below 1"),
        ("gather_period", "Auto", 'an integer from 1 to 2^53, or "auto"'),
        ("overlapped_gather", 1, "true or false"),
        ("overlapped_gather", "yes", "true or false"),
        ("variant", "partly", "one of: asynchronous, synchronous"),
        ("pre_steps", "nnm", 'a list of texts, such as ["nnm"]'),
        ("pre_steps", [1], 'a list of texts, such as ["nnm"]'),
        ("round_timeout", 0, "a number above 0"),
        ("variant", 1, "a text"),
        ("wire_type", "half", "one of: float32, float16, bfloat16"),
        ("wire_type", 16, "a text"),
        ("rule", "", "a text"),
        ("task", 3, "a text"),
        ("task_options", ["hidden"], "a table: [task_options]"),
        ("nodes", {}, "a list of tables: [[nodes]]"),
        ("nodes", [1], "a list of tables: [[nodes]]"),
    ],
)
def test_a_wrong_value_is_shown_with_what_would_be_right(
    key: str, value: object, right: str
) -> None:
    """One problem, which begins with the key."""
    [problem] = problems(file(**{key: value}))

    assert problem.startswith(f"{key}: found ")
    assert problem.endswith(f"; must be {right}")


@pytest.mark.parametrize("value", [[1], {"deeper": 1}, datetime.date(2024, 2, 29)])
def test_task_options_are_plain_values(value: object) -> None:
    """Texts, numbers and booleans: what a factory can be called with."""
    [problem] = problems(file(task_options={"x": value}))

    assert problem == f"task_options.x: found {value!r}; must be a text, a number or a boolean"


def test_task_options_are_integers_that_every_language_holds() -> None:
    """Larger ones are refused where smaller ones are taken."""
    [problem] = problems(file(task_options={"x": 2**53 + 1, "y": 2**53}))

    assert problem == (
        "task_options.x: found a number beyond 2^53; must be an integer between -2^53 and 2^53"
    )


@pytest.mark.parametrize("key", ["f_servers", "f_workers", "task"])
def test_what_has_no_default_is_asked_for(key: str) -> None:
    """A missing key is named, with what it must be."""
    [problem] = problems(without(file(), key))

    assert problem.startswith(f"{key}: missing; must be a")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("f_server", "did you mean f_servers?"),
        ("worker_quorums", "did you mean worker_quorum?"),
        ("learning-rate", "did you mean learning_rate?"),
        ("xyzzy", "known: batch_size, f_servers"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, hint: str) -> None:
    """Or all known ones, where none is near."""
    [problem] = problems(file(**{key: 1}))

    assert problem.startswith(f"{key}: unknown key; {hint}")


def test_an_unknown_key_of_a_node_names_the_nearest() -> None:
    """With the node's place in the file."""
    assert problems(with_node(adress="x")) == (
        "nodes[0].adress: unknown key; did you mean address?",
    )


def test_where_nothing_is_known_the_hint_says_so() -> None:
    """A hint never ends in the middle of a sentence."""
    assert nearest("x", []) == "known: none"


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        ("id", "", "a lower-case letter and up to 31 more of a-z 0-9 . _ -"),
        ("id", "S1", "a lower-case letter and up to 31 more of a-z 0-9 . _ -"),
        ("id", "1s", "a lower-case letter and up to 31 more of a-z 0-9 . _ -"),
        ("id", "s1\n", "a lower-case letter and up to 31 more of a-z 0-9 . _ -"),
        ("id", "s" * 33, "a lower-case letter and up to 31 more of a-z 0-9 . _ -"),
        ("role", "master", "one of: server, worker, operator"),
        ("role", "", "one of: server, worker, operator"),
        ("public_key", "", "a CURVE key, 40 characters of Z85"),
        ("public_key", KEY[1:], "a CURVE key, 40 characters of Z85"),
        ("public_key", KEY + "0", "a CURVE key, 40 characters of Z85"),
        ("public_key", "~" + KEY[1:], "a CURVE key, 40 characters of Z85"),
        ("address", "", "host:port with a port of 1 to 65534"),
        ("address", "10.0.0.1", "host:port with a port of 1 to 65534"),
        ("address", ":7000", "host:port with a port of 1 to 65534"),
        ("address", "h:0", "host:port with a port of 1 to 65534"),
        ("address", "h:65535", "host:port with a port of 1 to 65534"),
        ("address", "h:\u0667\u0660", "host:port with a port of 1 to 65534"),
        ("address", "::1:7000", "host:port with a port of 1 to 65534"),
        ("http", "h:65536", "host:port with a port of 1 to 65535"),
        ("http", "9100", "host:port with a port of 1 to 65535"),
    ],
)
def test_a_wrong_field_of_a_node_is_shown_with_what_would_be_right(
    field: str, value: str, right: str
) -> None:
    """One problem, which names the node's place and the field."""
    assert problems(with_node(**{field: value})) == (
        f"nodes[0].{field}: found {value!r}; must be {right}",
    )


@pytest.mark.parametrize("field", MEMBER_TEXTS)
def test_fields_of_a_node_are_texts(field: str) -> None:
    """A number where a text belongs is named first."""
    assert problems(with_node(**{field: 1}))[0] == f"nodes[0].{field}: found 1; must be a text"


def test_keys_may_be_left_out_where_no_network_is() -> None:
    """A simulation needs none; a wrong one is refused there too."""
    mapping = with_node(public_key="")

    assert Cluster.from_mapping(mapping, keys=False).nodes[0].public_key == ""
    mapping["nodes"][0]["public_key"] = "short"
    assert len(problems(mapping, keys=False)) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"id": "s2"}, "nodes: s2 and s2 share the id s2"),
        ({"public_key": key_of(2)}, f"nodes: s1 and s2 share the public_key {key_of(2)}"),
        ({"address": "10.0.0.2:7000"}, "nodes: s1 and s2 share the port 10.0.0.2:7000"),
        ({"address": "10.0.0.2:7001"}, "nodes: s1 and s2 share the port 10.0.0.2:7001"),
        ({"address": "10.0.0.2:6999"}, "nodes: s1 and s2 share the port 10.0.0.2:7000"),
        ({"http": "10.0.0.2:9100"}, "nodes: s1 and s2 share the port 10.0.0.2:9100"),
        ({"http": "10.0.0.1:7001"}, "nodes: s1 and s1 share the port 10.0.0.1:7001"),
    ],
)
def test_what_must_name_one_node_names_one(changes: dict[str, str], sentence: str) -> None:
    """A shared id or key would share votes, and a port has one owner: the next port counts too."""
    assert sentence in problems(with_node(**changes))


def test_a_cluster_has_nodes_and_not_a_million() -> None:
    """None at all is refused, and so is more than the limit, without reading them."""
    limit = f"must be 1 to {NODES_MAX}"

    assert problems(file(nodes=[])) == (f"nodes: found 0; {limit}",)
    nodes = [{}] * (NODES_MAX + 1)
    assert problems(file(nodes=nodes)) == (f"nodes: found {NODES_MAX + 1}; {limit}",)


words = st.text(max_size=5)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([54, 100_000]).map(lambda bits: 2**bits)
    | st.floats()
    | words
    | st.dates()
    | st.sampled_from(["auto", "server", "10.0.0.1:7000", "asynchronous", KEY])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=4,
)
nodes = st.lists(
    st.dictionaries(st.sampled_from([*MEMBER_TEXTS, "admitted"]) | words, values),
    max_size=4,
)


@given(
    st.dictionaries(st.sampled_from([f.name for f in fields(Cluster)]) | words, values, max_size=6),
    st.none() | nodes,
)
@settings(max_examples=200)
def test_whatever_a_file_holds_it_is_a_cluster_or_a_report(
    mapping: dict[str, Any], members: list[dict[str, Any]] | None
) -> None:
    """No mapping raises anything but ClusterError."""
    with suppress(ClusterError):
        Cluster.from_mapping(mapping if members is None else mapping | {"nodes": members})


@given(st.sampled_from([f.name for f in fields(Cluster)]), values)
@settings(max_examples=200)
def test_one_wrong_value_is_a_cluster_or_a_report(key: str, value: Any) -> None:
    """Also where all else is right; and a cluster that was taken has a digest."""
    with suppress(ClusterError):
        assert len(Cluster.from_mapping(file(**{key: value})).digest()) == 16


# What is unwise


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"gather_period": 6}, []),
        ({"worker_momentum": 0.0}, ["worker_momentum = 0"]),
        ({"worker_momentum": 0.0, "f_workers": 0}, []),
        ({"servers": 8, "f_servers": 2, "gather_period": 5}, []),
        ({"servers": 8, "f_servers": 2, "gather_period": "auto"}, []),
        ({"servers": 8, "f_servers": 2, "gather_period": 6}, ["gather_period = 6"]),
        ({"overlapped_gather": True}, []),
        ({"servers": 8, "f_servers": 2, "overlapped_gather": True}, ["overlapped_gather = true"]),
    ],
)
def test_what_is_allowed_and_unwise_is_said(changes: dict[str, Any], words: list[str]) -> None:
    """One sentence each, and none without need."""
    warnings = Cluster.from_mapping(file(**changes)).warnings()

    assert len(warnings) == len(words)
    assert all(warning.startswith(word) for warning, word in zip(warnings, words, strict=True))


def test_gathers_overlap_in_the_asynchronous_variant_alone() -> None:
    """The refusal says what to do instead."""
    assert Cluster.from_mapping(file(overlapped_gather=True)).overlapped_gather
    [problem] = problems(file(overlapped_gather=True, variant="synchronous"))

    assert problem.startswith("overlapped_gather: not with variant = synchronous")
    assert problem.endswith("leave it out, or take variant = asynchronous")


# Digests

OTHER_VALUES: dict[str, Any] = {
    "f_servers": 0,
    "f_workers": 1,
    "server_quorum": 5,
    "worker_quorum": 6,
    "task": "mnist",
    "task_options": {"x": 1},
    "rule": "krum",
    "gather_period": 2,
    "overlapped_gather": True,
    "wire_type": WireType.BFLOAT16,
    "learning_rate": 0.2,
    "learning_rate_decay_steps": 10.0,
    "worker_momentum": 0.5,
    "batch_size": 64,
    "seed": 2,
    "steps": 9,
}


@pytest.mark.parametrize("key", [*OTHER_VALUES, "variant", "nodes"])
def test_nodes_whose_files_differ_can_name_the_key(key: str) -> None:
    """Every agreed key has a digest of its own, and the digest of all changes with it."""
    one = Cluster.from_mapping(file(6, 8, server_quorum=4, worker_quorum=5))
    value = {"variant": "other", "nodes": one.nodes[:-1]} | OTHER_VALUES
    other = replace(one, **{key: value[key]})

    mine, theirs = one.digests(), other.digests()
    assert mine.keys() == theirs.keys() == {f.name for f in fields(Cluster)}
    assert differing_keys(mine, theirs) == differing_keys(theirs, mine) == (key,)
    assert one.digest() != other.digest()
    assert (one.digest("task", "seed") != other.digest("task", "seed")) == (key in ("task", "seed"))


def test_a_key_that_only_one_file_has_differs() -> None:
    """Another version's, it may be; names are sorted."""
    one = Cluster.from_mapping(file()).digests()
    other = {key: digest for key, digest in one.items() if key != "seed"}

    assert differing_keys(one | {"extra": b""}, other) == ("extra", "seed")
    assert differing_keys(other, one | {"extra": b""}) == ("extra", "seed")
    assert differing_keys(one, dict(one)) == ()


def test_where_a_node_is_reached_is_not_agreed_on() -> None:
    """Addresses may differ behind a NAT, and so may the order of the file."""
    one = Cluster.from_mapping(file())
    mapping = with_node(address="elsewhere:1234", http="")
    mapping["nodes"].reverse()
    other = Cluster.from_mapping(mapping)

    assert one.digests() == other.digests()
    assert one.digest() == other.digest()


@pytest.mark.parametrize("changes", [{"public_key": key_of(77)}, {"admitted": False}])
def test_who_may_connect_is_not_agreed_on(changes: dict[str, object]) -> None:
    """A new key reaches the nodes one after the other, and each shuts out whom it will."""
    one = Cluster.from_mapping(file())
    other = Cluster.from_mapping(with_node(**changes))

    assert one != other
    assert one.digests() == other.digests()


def test_a_node_is_admitted_unless_the_file_says_otherwise() -> None:
    """Only true and false say so; a node that is not admitted counts among the n all the same."""
    shut_out = Cluster.from_mapping(with_node(admitted=False))

    assert [node.admitted for node in shut_out.nodes].count(False) == 1
    assert all(node.admitted for node in Cluster.from_mapping(file()).nodes)
    assert shut_out.n_servers == Cluster.from_mapping(file()).n_servers
    (problem,) = problems(with_node(admitted="no"))
    assert problem == "nodes[0].admitted: found 'no'; must be true or false"


@pytest.mark.parametrize("changes", [{"id": "s9"}, {"role": "worker", "id": "w9"}])
def test_who_takes_part_is_agreed_on(changes: dict[str, str]) -> None:
    """Another name or role of one node is another cluster."""
    one = Cluster.from_mapping(file(6))
    mapping = file(6)
    mapping["nodes"][5] |= changes
    other = Cluster.from_mapping(mapping)

    assert one.digests()["nodes"] != other.digests()["nodes"]


def test_equal_numbers_have_equal_digests_however_they_are_written() -> None:
    """1 and 1.0 are the same learning rate, and a default is what it stands for."""
    one = Cluster.from_mapping(file(learning_rate=1))
    other = Cluster.from_mapping(file(learning_rate=1.0, worker_quorum=5, rule="mda"))

    assert one.digests() == other.digests()


def test_digests_are_the_same_on_every_machine_and_in_every_version() -> None:
    """A fixed file has a fixed digest: nothing of it depends on the process."""
    assert Cluster.from_mapping(file()).digest().hex() == "ceac80503441770a592be6494457fedf"
    assert Cluster.from_mapping(file()).digest("task").hex() == "b89418bb92ca29ef3481954dac872e65"
