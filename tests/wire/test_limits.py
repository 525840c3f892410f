"""Sizes that can be a message, and all others."""

import pytest

from byzsgd.errors import WireError
from byzsgd.wire.limits import (
    COORDINATES_MAX,
    FRAME_BYTES,
    HEADER_BYTES_MAX,
    check_sizes,
    frame_count,
)


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
    assert frame_count(d) == count


@pytest.mark.parametrize(
    ("d", "count"),
    [(1, 2), (FRAME_BYTES // 2, 2), (FRAME_BYTES // 2 + 1, 3), (COORDINATES_MAX, 1 + 2048)],
)
def test_two_bytes_a_coordinate_take_half_the_frames(d: int, count: int) -> None:
    """Each frame as full as ever; no other number of bytes is let through."""
    assert frame_count(d, 2) == count
    sizes = [50, *[FRAME_BYTES] * (count - 2), 2 * d - (count - 2) * FRAME_BYTES]
    check_sizes(sizes, d, 2)
    with pytest.raises(WireError) as refusal:
        check_sizes(sizes, d)
    assert refusal.value.reason == "wrong-length"


@pytest.mark.parametrize(
    "sizes",
    [[1], [HEADER_BYTES_MAX], [50, FRAME_BYTES, FRAME_BYTES]],
)
def test_sizes_within_the_limits_are_let_through(sizes: list[int]) -> None:
    """A header alone, or one with exactly the payload of d coordinates, can be a message."""
    check_sizes(sizes, FRAME_BYTES // 2)


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
        check_sizes(sizes, FRAME_BYTES // 2)

    assert refusal.value.reason == reason
