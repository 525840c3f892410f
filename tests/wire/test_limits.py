"""Sizes that can be a message, and all others."""

import pytest

from byzsgd.cluster import WireType
from byzsgd.errors import WireError
from byzsgd.wire.limits import (
    COORDINATES_MAX,
    FRAME_BYTES,
    HEADER_BYTES_MAX,
    Layout,
    check_sizes,
)

HALVES = (WireType.FLOAT16, WireType.BFLOAT16)


@pytest.mark.parametrize(
    ("d", "count"),
    [
        (1, 2),
        (FRAME_BYTES // 4, 2),
        (FRAME_BYTES // 4 + 1, 3),
        (COORDINATES_MAX, 1 + 4096),
    ],
)
def test_a_vector_travels_in_one_frame_for_each_mebibyte_begun(d: int, count: int) -> None:
    """Plus one for the header."""
    assert Layout(d).frame_count == count


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("d", "count"),
    [(1, 2), (FRAME_BYTES // 2, 2), (FRAME_BYTES // 2 + 1, 3), (COORDINATES_MAX, 1 + 2048)],
)
def test_two_bytes_a_coordinate_take_half_the_frames(d: int, count: int, half: WireType) -> None:
    """Each frame as full as ever; no other number of bytes is let through."""
    layout = Layout(d, half)
    assert layout.frame_count == count
    sizes = [50, *[FRAME_BYTES] * (count - 2), 2 * d - (count - 2) * FRAME_BYTES]
    check_sizes(sizes, layout)
    with pytest.raises(WireError) as refusal:
        check_sizes(sizes, Layout(d))
    assert refusal.value.reason == "wrong-length"


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("d", "buffers", "size"),
    [
        (3, 1, 8),
        (3, 2, 10),
        (FRAME_BYTES // 2, 1, FRAME_BYTES + 2),
        (FRAME_BYTES // 2 - 1, 1, FRAME_BYTES),
        (COORDINATES_MAX, COORDINATES_MAX - 1, 4 * COORDINATES_MAX - 2),
    ],
)
def test_buffers_take_four_bytes_where_others_take_two(
    d: int, buffers: int, size: int, half: WireType
) -> None:
    """Frames are as full as ever, and of float32 a vector has the bytes it had."""
    layout = Layout(d, half, buffers)
    assert layout.payload_bytes == size
    assert layout.frame_count == 1 + -(-size // FRAME_BYTES)
    assert Layout(d, buffers=buffers).payload_bytes == 4 * d
    full = layout.frame_count - 2
    check_sizes([50, *[FRAME_BYTES] * full, size - full * FRAME_BYTES], layout)


def test_who_disagrees_about_buffers_is_told_both_lengths() -> None:
    """No number of buffers gives the length of another, nor that of float32."""
    layouts = [Layout(9), *(Layout(9, WireType.BFLOAT16, buffers) for buffers in range(9))]

    for mine in layouts:
        for theirs in layouts:
            if mine is theirs:
                check_sizes([50, theirs.payload_bytes], mine)
                continue
            with pytest.raises(WireError) as refusal:
                check_sizes([50, theirs.payload_bytes], mine)
            assert refusal.value.reason == "wrong-length"
    with pytest.raises(WireError, match="18 bytes, not the 22 of 9 coordinates, 2 of them buffers"):
        check_sizes([50, 18], Layout(9, WireType.BFLOAT16, 2))
    with pytest.raises(WireError, match=r"22 bytes, not the 36 of 9 coordinates$"):
        check_sizes([50, 22], Layout(9, buffers=2))


@pytest.mark.parametrize("buffers", [-1, 3])
def test_a_vector_is_not_of_buffers_alone(buffers: int) -> None:
    """The task was looked at before; whoever makes such a layout has a bug."""
    with pytest.raises(AssertionError):
        Layout(3, WireType.BFLOAT16, buffers)


@pytest.mark.parametrize(
    "sizes",
    [[1], [HEADER_BYTES_MAX], [50, FRAME_BYTES, FRAME_BYTES]],
)
def test_sizes_within_the_limits_are_let_through(sizes: list[int]) -> None:
    """A header alone, or one with exactly the payload of d coordinates, can be a message."""
    check_sizes(sizes, Layout(FRAME_BYTES // 2))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ([], "malformed"),
        ([0], "malformed"),
        ([HEADER_BYTES_MAX + 1], "malformed"),
        ([HEADER_BYTES_MAX + 1, FRAME_BYTES, FRAME_BYTES], "malformed"),
        ([50, FRAME_BYTES, 0], "malformed"),
        ([50, FRAME_BYTES - 1, FRAME_BYTES], "malformed"),
        ([50, FRAME_BYTES], "wrong-length"),
        ([50, FRAME_BYTES, FRAME_BYTES - 4], "wrong-length"),
        ([50, *[0] * 1_000_000], "wrong-length"),
    ],
)
def test_other_sizes_are_refused(sizes: list[int], reason: str) -> None:
    """Each limit has its reason, and a million frames are refused without a look at them."""
    with pytest.raises(WireError) as refusal:
        check_sizes(sizes, Layout(FRAME_BYTES // 2))

    assert refusal.value.reason == reason
