"""How often a thing may be done."""

from byzsgd.transport.buckets import Buckets


def test_a_full_bucket_is_a_burst_and_comes_back_bit_by_bit() -> None:
    """Three in a row, then one every half second; never more than three were saved up."""
    buckets = Buckets[str](burst=3, per_second=2)

    assert [buckets.take("w1", now=10.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [buckets.take("w1", now=10.5) for _ in range(2)] == [True, False]
    assert [buckets.take("w1", now=99.0) for _ in range(5)] == [True] * 3 + [False] * 2


def test_each_key_has_a_bucket_of_its_own() -> None:
    """Who takes too much takes it from nobody else."""
    buckets = Buckets[str](burst=1, per_second=1)

    assert buckets.take("w1", now=0.0)
    assert not buckets.take("w1", now=0.0)
    assert buckets.take("w2", now=0.0)
