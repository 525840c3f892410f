"""Messages to frames and back, and what any other bytes come to."""

import struct
from contextlib import AbstractContextManager
from unittest import mock

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from byzsgd.cluster import WireType
from byzsgd.errors import WireError
from byzsgd.messages import STEP_MAX, GatherModel, Gradient, Hello, Message, Model, Pull, Reason
from byzsgd.wire import (
    FRAME_BYTES,
    KIND_OF,
    Layout,
    Received,
    complete,
    decode,
    decode_header,
    encode,
    halves,
    limits,
)
from byzsgd.wire.codec import Frame
from byzsgd.wire.limits import DIGESTS_MAX, HEADER_BYTES_MAX

BOOT = b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7"
D = 3
VECTOR = np.float32([1, -2, 0.5])
PER_FRAME = FRAME_BYTES // 4

MESSAGES: list[Message] = [
    Model(7, VECTOR),
    GatherModel(0, VECTOR),
    Gradient(STEP_MAX, VECTOR),
    Pull(7),
    Hello(7),
    Hello(2**32, {"seed": b"abcd", "learning_rate": b"\x00\x01\x02\x03"}, reply=True),
]


def framed(message: Message) -> list[Frame]:
    return [bytes(frame) for frame in encode(message, BOOT)]


def header(**fields: object) -> bytes:
    """A pull's header with some fields replaced, or left out where they are ``...``."""
    whole = {"v": 1, "kind": "pull", "step": 7, "boot": BOOT} | fields
    return msgpack.packb({key: value for key, value in whole.items() if value is not ...})


def vector_frames(payload: bytes, announced: int | None = None, **fields: object) -> list[Frame]:
    """A model's frames, the payload uncut, with some fields replaced."""
    size = len(payload) if announced is None else announced
    packed = header(**{"kind": "model", "n": D} | fields | {"data": b""})
    return [packed[:-2] + struct.pack(">BI", 0xC6, size), payload]


def reason(frames: list[Frame], d: int = D) -> str:
    with pytest.raises(WireError) as refusal:
        decode(frames, Layout(d))
    return refusal.value.reason


# Round trips


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    """A message survives the wire, and so does the boot of its sender."""
    received = decode(encode(message, BOOT), Layout(D))

    assert received.boot == BOOT
    assert type(received.message) is type(message)
    assert received.message.step == message.step
    if isinstance(message, Pull | Hello):
        assert received.message == message
    else:
        assert received.message.vector.tobytes() == message.vector.tobytes()  # type: ignore[union-attr]


@pytest.mark.parametrize("d", [1, PER_FRAME - 1, PER_FRAME, PER_FRAME + 1, 2 * PER_FRAME])
def test_a_vector_is_cut_into_full_frames_and_a_rest(d: int) -> None:
    """Frames 1..k hold 1 MiB each, the last one the rest, and together the vector."""
    vector = np.arange(d, dtype=np.float32)

    frames = encode(Gradient(1, vector), BOOT)

    assert [len(frame) for frame in frames[1:-1]] == [FRAME_BYTES] * (len(frames) - 2)
    assert 1 <= len(frames[-1]) <= FRAME_BYTES
    assert b"".join(frames[1:]) == vector.tobytes()
    assert (decode(frames, Layout(d)).message.vector == vector).all()  # type: ignore[union-attr]


def test_encoding_copies_no_vector() -> None:
    """Payload frames are views of the vector itself, also of one that is read-only."""
    vector = np.zeros(PER_FRAME + 1, dtype=np.float32)
    vector.flags.writeable = False

    frames = encode(Model(0, vector), BOOT)

    for frame, low in zip(frames[1:], (0, PER_FRAME), strict=True):
        assert np.shares_memory(np.frombuffer(frame, np.float32), vector[low:])


def test_decoding_copies_every_vector() -> None:
    """A decoded vector is aligned, writable and nobody else's, even if its frame lies askew."""
    frames = framed(Model(0, VECTOR))
    askew = memoryview(b"x" + frames[1])[1:]

    vector = decode([frames[0], askew], Layout(D)).message.vector  # type: ignore[union-attr]

    assert vector.flags.aligned
    assert vector.flags.writeable
    assert vector.flags.owndata
    assert not np.shares_memory(vector, np.frombuffer(askew, np.uint8))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_joined_frames_are_one_msgpack_document(message: Message) -> None:
    """A stock decoder reads the joined frames, and finds the vector's bytes under data."""
    document = msgpack.unpackb(b"".join(encode(message, BOOT)))

    assert document["kind"] == KIND_OF[type(message)]
    assert document["step"] == message.step
    if not isinstance(message, Pull | Hello):
        assert document["data"] == message.vector.tobytes()
        assert list(document)[-1] == "data"


def test_the_largest_header_fits() -> None:
    """32 digests with the longest keys of a cluster file stay below the limit of a header."""
    hello = Hello(STEP_MAX, {f"a_key_of_20_chars_{n:02}": b"abcd" for n in range(DIGESTS_MAX)})

    frames = encode(hello, BOOT)

    assert len(frames[0]) <= HEADER_BYTES_MAX
    assert decode(frames, Layout(D)).message == hello


@pytest.mark.parametrize(
    "vector",
    [
        VECTOR.astype(np.float64),
        np.zeros(6, np.float32)[::2],
        np.zeros((1, 3), np.float32),
        np.zeros(0, np.float32),
        VECTOR.astype(">f4"),
    ],
    ids=["float64", "strided", "matrix", "empty", "big-endian"],
)
def test_no_half_message_is_made_of_a_wrong_vector(vector: np.ndarray) -> None:
    """Encoding asserts that the vector is flat, contiguous float32 before it makes any frame."""
    with pytest.raises(AssertionError):
        encode(Model(0, vector), BOOT)


# Two bytes a coordinate

HALVES = (WireType.FLOAT16, WireType.BFLOAT16)


@pytest.mark.parametrize("wire_type", HALVES)
@pytest.mark.parametrize("d", [1, 2 * PER_FRAME - 1, 2 * PER_FRAME, 2 * PER_FRAME + 1])
def test_half_a_vector_is_cut_into_full_frames_and_comes_out_rounded(
    wire_type: WireType, d: int
) -> None:
    """Frames of 1 MiB hold twice as many coordinates; the joined frames are one document."""
    vector = np.random.default_rng(d).standard_normal(d, np.float32)

    layout = Layout(d, wire_type)

    frames = encode(Gradient(1, vector), BOOT, layout)

    sizes = [len(frame) for frame in frames[1:]]
    assert sum(sizes) == 2 * d
    assert len(frames) == layout.frame_count
    assert sizes[:-1] == [FRAME_BYTES] * (len(sizes) - 1)
    document = msgpack.unpackb(b"".join(frames), max_bin_len=2**31)
    assert document["n"] == d
    packed = np.empty(2 * d, np.uint8)
    halves.pack(vector, wire_type, packed)
    assert document["data"] == packed.tobytes()
    received = decode(frames, layout)
    assert received.message.vector.tobytes() == halves.rounded(vector, wire_type).tobytes()  # type: ignore[union-attr]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("wire_type", HALVES)
def test_a_header_is_the_same_but_for_the_length_of_its_data(
    message: Message, wire_type: WireType
) -> None:
    """Nothing names the type: it is agreed on, as d is."""
    full, half = encode(message, BOOT), encode(message, BOOT, Layout(D, wire_type))

    if isinstance(message, Pull | Hello):
        assert full == half
    else:
        assert bytes(full[0][:-4]) == bytes(half[0][:-4])
        assert half[0][-4:] == struct.pack(">I", 2 * D)


@pytest.mark.parametrize("sent", WireType)
@pytest.mark.parametrize("agreed", WireType)
def test_a_vector_of_another_length_than_agreed_is_refused(
    sent: WireType, agreed: WireType
) -> None:
    """Whatever the header says of its n."""
    frames = [bytes(frame) for frame in encode(Gradient(1, VECTOR), BOOT, Layout(D, sent))]

    if sent.itemsize == agreed.itemsize:
        decode_header(frames, Layout(D, agreed))
        return
    with pytest.raises(WireError) as refusal:
        decode_header(frames, Layout(D, agreed))
    assert refusal.value.reason == Reason.WRONG_LENGTH


@pytest.mark.parametrize("wire_type", HALVES)
def test_half_the_bytes_of_twice_as_many_coordinates_are_refused(wire_type: WireType) -> None:
    """The right number of bytes with another n is a wrong length, as are n and bytes that fit."""
    message = Gradient(1, np.zeros(2 * D, np.float32))
    longer = [bytes(frame) for frame in encode(message, BOOT, Layout(2 * D, wire_type))]

    for agreed in (WireType.FLOAT32, wire_type):
        with pytest.raises(WireError) as refusal:
            decode(longer, Layout(D, agreed))
        assert refusal.value.reason == Reason.WRONG_LENGTH


@pytest.mark.parametrize("wire_type", HALVES)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 2 * PER_FRAME - 1, 2 * PER_FRAME])
def test_a_half_that_is_not_finite_is_refused(
    value: float, where: int, wire_type: WireType
) -> None:
    """Rounding makes nothing finite that was not."""
    vector = np.zeros(2 * PER_FRAME + 1, dtype=np.float32)
    vector[where] = value
    layout = Layout(len(vector), wire_type)
    frames = encode(Gradient(1, vector), BOOT, layout)

    with pytest.raises(WireError) as refusal:
        decode(frames, layout)
    assert refusal.value.reason == Reason.NON_FINITE


# Buffers


def cut_at(size: int) -> AbstractContextManager[object]:
    """Frames of so many bytes, so that few coordinates take many."""
    return mock.patch.object(limits, "FRAME_BYTES", size)


@st.composite
def laid_out(draw: st.DrawFn) -> tuple[Layout, np.ndarray, int]:
    """A layout, a vector of it, and how long frames are."""
    d = draw(st.integers(1, 24))
    layout = Layout(d, draw(st.sampled_from(WireType)), draw(st.integers(0, d - 1)))
    bits = draw(arrays(np.uint32, d, elements=st.integers(0, 2**32 - 1)))
    return layout, bits.view(np.float32), 4 * draw(st.integers(1, 12))


@settings(max_examples=400)
@given(drawn=laid_out())
def test_buffers_come_out_as_they_went_in_wherever_frames_are_cut(
    drawn: tuple[Layout, np.ndarray, int],
) -> None:
    """First the halves, then float32; one number that is not finite anywhere is refused."""
    layout, vector, frame_bytes = drawn
    low = layout.d - layout.buffers

    with cut_at(frame_bytes):
        frames = encode(Gradient(1, vector), BOOT, layout)
        assert len(frames) == layout.frame_count
        assert {len(frame) for frame in frames[1:-1]} <= {frame_bytes}
        document = msgpack.unpackb(b"".join(frames))
        if not np.isfinite(vector).all():
            with pytest.raises(WireError) as refusal:
                decode(frames, layout)
            assert refusal.value.reason == Reason.NON_FINITE
            return
        received = decode(frames, layout).message.vector  # type: ignore[union-attr]

    assert len(document["data"]) == layout.payload_bytes
    assert document["data"].endswith(vector[low:].tobytes())
    assert received[low:].tobytes() == vector[low:].tobytes()
    assert received[:low].tobytes() == halves.rounded(vector[:low], layout.wire_type).tobytes()


@settings(max_examples=200)
@given(drawn=laid_out(), other=laid_out(), changed=st.integers(-9, 9))
def test_another_layout_or_length_is_refused_before_the_payload_is_read(
    drawn: tuple[Layout, np.ndarray, int], other: tuple[Layout, np.ndarray, int], changed: int
) -> None:
    """Whatever the number of buffers: who disagrees about it is misread by nobody."""
    layout, vector, frame_bytes = drawn
    vector = np.zeros_like(vector)

    with cut_at(frame_bytes):
        frames = [bytes(frame) for frame in encode(Gradient(1, vector), BOOT, layout)]
        payload = b"".join(frames[1:])
        resized = payload[:changed] if changed < 0 else payload + bytes(changed)
        cuts = range(0, len(resized), frame_bytes)
        resized_frames = [frames[0], *(resized[low : low + frame_bytes] for low in cuts)]
        for mine, found, fits in (
            (other[0], frames, (other[0].d, other[0].rounded) == (layout.d, layout.rounded)),
            (layout, resized_frames, changed == 0),
        ):
            if fits:
                decode_header(found, mine)
                continue
            with pytest.raises(WireError) as refusal:
                decode_header(found, mine)
            allowed = {Reason.WRONG_LENGTH} if resized else {Reason.MALFORMED, Reason.WRONG_LENGTH}
            assert refusal.value.reason in allowed


@pytest.mark.parametrize("wire_type", HALVES)
@pytest.mark.parametrize("rounded", [1, 2 * PER_FRAME - 1, 2 * PER_FRAME, 2 * PER_FRAME + 1])
@pytest.mark.parametrize("buffers", [1, PER_FRAME])
def test_full_frames_hold_halves_and_buffers(
    rounded: int, buffers: int, wire_type: WireType
) -> None:
    """Also where a mebibyte ends within a buffer; a NaN is found in each of the first and last."""
    layout = Layout(rounded + buffers, wire_type, buffers)
    vector = np.random.default_rng(rounded).standard_normal(layout.d, np.float32)

    frames = encode(Model(1, vector), BOOT, layout)

    assert [len(frame) for frame in frames[1:-1]] == [FRAME_BYTES] * (layout.frame_count - 2)
    received = decode(frames, layout).message.vector  # type: ignore[union-attr]
    assert received.flags.owndata
    assert (received[rounded:] == vector[rounded:]).all()
    assert (received[:rounded] == halves.rounded(vector[:rounded], wire_type)).all()
    for where in (rounded - 1, rounded, layout.d - 1):
        broken = vector.copy()
        broken[where] = np.nan
        with pytest.raises(WireError) as refusal:
            decode(encode(Model(1, broken), BOOT, layout), layout)
        assert refusal.value.reason == Reason.NON_FINITE


def test_float32_is_the_same_bytes_with_buffers() -> None:
    """And no copy: nothing is rounded that buffers could be spared."""
    frames = encode(Model(7, VECTOR), BOOT, Layout(D, buffers=2))

    assert [bytes(frame) for frame in frames] == framed(Model(7, VECTOR))
    assert np.shares_memory(np.frombuffer(frames[1], np.float32), VECTOR)


def test_no_half_message_is_made_of_a_vector_of_another_length() -> None:
    """Nor of one that its layout does not fit."""
    with pytest.raises(AssertionError):
        encode(Model(7, VECTOR), BOOT, Layout(D + 1))


# Strict decoding


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\x80",
        b"\x90",
        b"\xc0",
        header()[:-1],
        header() + b"\xc0",
        header(v=...),
        header(step=...),
        header(extra=1),
        header(v=True),
        header(v=1.0),
        header(v="1"),
        header(kind=b"pull"),
        header(kind="vote"),
        header(kind="model"),
        header(kind=["pull"]),
        header(step=True),
        header(step=7.0),
        header(step=-1),
        header(step=STEP_MAX + 1),
        header(step=2**64 - 1),
        header(step=None),
        header(step={}),
        header(step=msgpack.Timestamp(7)),
        header(step=msgpack.ExtType(1, b"")),
        header(boot=BOOT[:-1]),
        header(boot=BOOT + b"\0"),
        header(boot="8 chars!"),
        header(kind="hello"),
        header(kind="hello", reply=0, digests={}),
        header(kind="hello", reply=False, digests=[]),
        header(kind="hello", reply=False, digests={"seed": b"abc"}),
        header(kind="hello", reply=False, digests={"seed": "abcd"}),
        header(kind="hello", reply=False, digests={b"seed": b"abcd"}),
        header(kind="hello", reply=False, digests={"se\x1b[0med": b"abcd"}),
        header(kind="hello", reply=False, digests={"é": b"abcd"}),
        header(kind="hello", reply=False, digests={"k" * 65: b"abcd"}),
        header(kind="hello", reply=False, digests={f"k{n}": b"abcd" for n in range(33)}),
        header(kind="hello", reply=False, digests={}) + b"\0" * HEADER_BYTES_MAX,
        header().replace(b"step", b"st\xffp"),
        msgpack.packb([["v", 1], ["kind", "pull"], ["step", 7], ["boot", BOOT]]),
    ],
    ids=lambda frame: frame[:48].hex(),
)
def test_a_header_that_is_not_exactly_right_is_malformed(frame: bytes) -> None:
    """Exactly the keys of its kind, each of exactly its type and range, or no message."""
    assert reason([frame]) == Reason.MALFORMED


def test_a_key_twice_is_malformed() -> None:
    """Two values for one key are refused: decoders differ in which of them counts."""
    twice = b"\x85" + header()[1:] + msgpack.packb("step") + msgpack.packb(8)
    hello = header(kind="hello", reply=False, digests={"a": b"abcd", "b": b"abcd"})

    assert reason([twice]) == Reason.MALFORMED
    assert reason([hello.replace(b"\xa1b", b"\xa1a")]) == Reason.MALFORMED
    assert decode([hello], Layout(D)).message.step == 7


def test_another_version_is_named() -> None:
    """A header of another version is refused for that, whatever else it holds."""
    assert reason([header(v=2)]) == Reason.VERSION
    assert reason([header(v=0, kind="new", extra=1, step=...)]) == Reason.VERSION


def test_only_frames_that_fit_the_kind_are_a_message() -> None:
    """A vector needs payload frames, a pull has none, and no message has none at all."""
    inline = header(kind="model", n=1, data=b"\0\0\x80?")

    assert reason([]) == Reason.MALFORMED
    assert reason([inline], d=1) == Reason.MALFORMED
    assert reason([header(), b"\0" * 4 * D]) == Reason.MALFORMED
    assert reason(vector_frames(VECTOR.tobytes(), kind="pull")) == Reason.MALFORMED


@pytest.mark.parametrize("n", [D - 1, D + 1, 0, -1, 2**32])
def test_an_announced_length_must_be_the_clusters(n: int) -> None:
    """Any n other than d is of wrong length, although the payload fits."""
    assert reason(vector_frames(VECTOR.tobytes(), n=n)) == Reason.WRONG_LENGTH


def test_a_payload_must_hold_d_coordinates() -> None:
    """Bytes and coordinates that are too few or too many are of wrong length."""
    assert reason(vector_frames(bytes(4 * D - 1))) == Reason.WRONG_LENGTH
    assert reason(vector_frames(bytes(4 * D + 4), n=D + 1)) == Reason.WRONG_LENGTH
    assert reason([*vector_frames(bytes(4 * D)), b"more"]) == Reason.WRONG_LENGTH
    assert reason(vector_frames(bytes(4 * D), n=True)) == Reason.MALFORMED
    assert reason(vector_frames(bytes(4 * D), announced=4 * D - 1)) == Reason.MALFORMED
    assert reason(vector_frames(bytes(4 * D), announced=2**32 - 1)) == Reason.MALFORMED


@pytest.mark.parametrize(
    "cuts", [[4, FRAME_BYTES], [FRAME_BYTES - 4, 8], [FRAME_BYTES, 0], [FRAME_BYTES + 4]]
)
def test_a_payload_must_be_cut_into_full_frames(cuts: list[int]) -> None:
    """The right bytes in wrong frames are malformed."""
    d = PER_FRAME + 1
    first = encode(Model(0, np.zeros(d, np.float32)), BOOT)[0]

    assert reason([first, *map(bytes, cuts)], d) == Reason.MALFORMED


def test_data_must_come_last() -> None:
    """A payload that would belong to another key than data, or to none, is malformed."""
    payload = VECTOR.tobytes()
    bin32 = struct.pack(">BI", 0xC6, len(payload))
    other_key = header(kind="model", data=b"", n=b"")[:-2] + bin32
    within_text = header(kind="model", n=D, data=b"")[:-2] + b"\xa7\xc4" + bin32

    assert reason([other_key, payload]) == Reason.MALFORMED
    assert reason([within_text, payload]) == Reason.MALFORMED


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, PER_FRAME - 1, PER_FRAME, 2 * PER_FRAME - 1, 2 * PER_FRAME])
def test_a_coordinate_that_is_not_finite_is_refused(value: float, where: int) -> None:
    """One NaN or infinity anywhere, at the edges of frames too, is enough."""
    vector = np.zeros(2 * PER_FRAME + 1, dtype=np.float32)
    vector[where] = value

    assert reason(framed(Gradient(1, vector)), d=len(vector)) == Reason.NON_FINITE


def test_a_header_is_judged_without_its_payload() -> None:
    """Decoding a header reads no byte of the payload; completing it does."""
    frames = framed(Model(7, np.float32([1, np.nan, 3])))

    checked = decode_header(frames, Layout(D))

    assert (checked.kind, checked.step, checked.payload_bytes) == ("model", 7, 4 * D)
    with pytest.raises(WireError, match="non-finite"):
        complete(checked, frames, Layout(D))


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x80" * HEADER_BYTES_MAX,
        b"\x91" * HEADER_BYTES_MAX,
        b"\x81\xa1a" * 300,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xd6\xff" + bytes(4),
        b"\x81\xa1v\xc7\x0c\xff" + bytes(12),
    ],
    ids=lambda bomb: bomb[:6].hex(),
)
def test_bombs_are_malformed(bomb: bytes) -> None:
    """What would make a decoder allocate, recurse or build objects at will is refused."""
    assert reason([bomb]) == Reason.MALFORMED
    assert reason([bomb[-HEADER_BYTES_MAX + 5 :] + b"\xc6\0\0\0\x0c", bytes(12)]) == "malformed"


# Any bytes

frame_lists = st.lists(st.binary(max_size=40), max_size=4)
packed_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["v", "kind", "step", "boot", "n", "data"]), inner)
    ),
    max_leaves=12,
).map(msgpack.packb)


@settings(max_examples=300)
@given(frames=frame_lists | st.lists(packed_anything, min_size=1, max_size=2))
def test_nothing_but_a_wire_error_leaves_decode(frames: list[Frame]) -> None:
    """Arbitrary bytes and arbitrary msgpack are refused as a WireError with a known reason."""
    assert reason(frames) in set(Reason)


@settings(max_examples=600)
@given(data=st.data(), message=st.sampled_from(MESSAGES))
def test_a_mutated_message_is_refused_or_still_a_message(
    data: st.DataObject, message: Message
) -> None:
    """Valid frames with bytes changed, cut out or put in decode to a sound message or WireError."""
    frames = [bytearray(frame) for frame in encode(message, BOOT)]
    for _ in range(data.draw(st.integers(1, 3))):
        frame = data.draw(st.sampled_from(frames))
        low = data.draw(st.integers(0, len(frame)))
        high = data.draw(st.integers(low, min(low + 4, len(frame))))
        frame[low:high] = data.draw(st.binary(max_size=6))

    outcome: Received | WireError
    try:
        outcome = decode(frames, Layout(D))
    except WireError as refusal:
        outcome = refusal

    if isinstance(outcome, WireError):
        assert outcome.reason in set(Reason)
        return
    assert 0 <= outcome.message.step <= STEP_MAX
    assert len(outcome.boot) == 8
    if not isinstance(outcome.message, Pull | Hello):
        assert outcome.message.vector.shape == (D,)
        assert np.isfinite(outcome.message.vector).all()
