"""Whatever bytes come, the decoder returns a message in full or refuses; and asks little memory."""

import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire import decoding
from tests.wire.decoding import LAYOUTS, check, check_frames, join, split

from byzsgd.messages import STEP_MAX, GatherModel, Gradient, Hello, Message, Model, Pull
from byzsgd.wire import Layout, encode
from byzsgd.wire.limits import HEADER_BYTES_MAX

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
"""What the fuzzer kept: together these reach every branch that it could find in 10^6 tries."""

MEMORY_BYTES_MAX = 256 * 1024
"""Far above what a header takes, and far below what one of its lengths may claim."""

BOOT = b"12345678"
VECTOR = np.float32([1, -2, 0.5])

MESSAGES: list[Message] = [
    Model(7, VECTOR),
    GatherModel(0, VECTOR),
    Gradient(STEP_MAX, VECTOR),
    Pull(7),
    Hello(7, {"seed": b"abcd", "rule": b"\0\1\2\3"}, reply=True),
]

numbers = st.sampled_from([0, 1, 12, 127, 128, 2**16, 2**31, 2**32 - 1, 2**53, 2**63, 2**64 - 1])
ends = st.sampled_from([b"", b"\xc0", b"\xc3", b"\xca\x7f\xc0\0\0", b"\xc6\0\0\0\x0c", b"\x80"])


@st.composite
def mutated(draw: st.DrawFn) -> list[bytes]:
    """Frames of a message in which bytes, lengths or whole frames were changed."""
    message, layout = draw(st.sampled_from(MESSAGES)), draw(st.sampled_from(LAYOUTS))
    frames = [bytes(frame) for frame in encode(message, BOOT, layout)]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(frames) - 1))
        frame = frames[at]
        low = draw(st.integers(0, len(frame)))
        high = draw(st.integers(low, min(low + 9, len(frame))))
        new = draw(st.binary(max_size=9) | numbers.map(lambda n: n.to_bytes(8)) | ends)
        match draw(st.sampled_from(["replace", "cut", "double", "swap", "add", "spread"])):
            case "replace":
                frames[at] = frame[:low] + new + frame[high:]
            case "cut":
                frames[at] = frame[:low]
            case "double":
                frames.insert(at, frame)
            case "swap":
                frames[0], frames[at] = frames[at], frames[0]
            case "add":
                frames.append(new)
            case "spread":
                frames[at : at + 1] = [frame[:low], frame[low:]]
    return frames


@settings(max_examples=300)
@given(frames=mutated(), layout=st.sampled_from(LAYOUTS))
def test_what_was_a_message_is_one_in_full_or_refused(frames: list[bytes], layout: Layout) -> None:
    """Never half of one, and nothing but a WireError is raised; also of another layout."""
    check_frames(frames, layout)


@settings(max_examples=200)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_or_a_message(data: bytes) -> None:
    """However they are cut into frames."""
    check(data)


def test_a_message_passes_what_is_asked_of_any_bytes() -> None:
    """So that the property is not one of refusals alone."""
    for message, layout in product(MESSAGES, LAYOUTS):
        frames = [bytes(frame) for frame in encode(message, BOOT, layout)]
        assert check_frames(frames, layout)
        assert split(join(frames)) == frames


def test_what_the_fuzzer_found_is_still_refused_or_a_message() -> None:
    """Every branch of the decoder that it reached, at every change of the code."""
    found = {
        (path.name, layout): check_frames(split(path.read_bytes()), layout)
        for path in CORPUS
        for layout in LAYOUTS
    }

    assert len(CORPUS) >= 50
    for agreed in LAYOUTS:
        assert any(is_message for (_, layout), is_message in found.items() if layout == agreed)
    assert sum(path.stat().st_size for path in CORPUS) < 200 * 1024


@pytest.mark.parametrize(
    "frames",
    [
        [b"\xdd\xff\xff\xff\xff" + bytes(1000)],
        [b"\xdf\xff\xff\xff\xff" + bytes(1000)],
        [b"\xc6\x7f\xff\xff\xff" + bytes(1000)],
        [b"\x90" * HEADER_BYTES_MAX],
        [b"\xdc\x03\xfd" + b"\x80" * (HEADER_BYTES_MAX - 3)],
        [b"\xde\x01\xff" + b"\xa0\xc0" * 500],
        [b"\x91" * HEADER_BYTES_MAX],
        [b"\x80" * (8 << 20)],
        [b"\x80" * 1000, b"\x80" * (1 << 20)],
        [b""] * 100_000,
    ],
    ids=lambda frames: f"{len(frames)} frames of {frames[0][:5].hex()}",
)
def test_a_refusal_asks_for_little_memory(frames: list[bytes]) -> None:
    """Whatever lengths a header claims, and however many frames there are."""
    tracemalloc.start()
    try:
        assert not check_frames(frames)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    # A list of the frames' sizes is made before anything is looked at.
    assert peak <= MEMORY_BYTES_MAX + 16 * len(frames), peak


def test_the_property_notices_a_decoder_that_believes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that takes a payload for what it is not, or that raises, would be found."""
    frames = [bytes(frame) for frame in encode(Gradient(1, VECTOR), BOOT)]
    genuine = decoding.decode

    def careless(frames: list[bytes], layout: Layout) -> object:
        received = genuine(frames, layout)
        received.message.vector[0] = 5
        return received

    monkeypatch.setattr(decoding, "decode", careless)
    with pytest.raises(AssertionError):
        check_frames(frames)
    monkeypatch.setattr(decoding, "decode", lambda frames, layout: {}["a bug"])
    with pytest.raises(KeyError):
        check_frames(frames)
