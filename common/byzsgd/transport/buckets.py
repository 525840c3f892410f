"""Token buckets: how often each of some peers may do a thing."""

from typing import Generic, TypeVar

Key = TypeVar("Key")


class Buckets(Generic[Key]):
    """A bucket of tokens for each key; a token is taken each time that the thing is done."""

    def __init__(self, burst: float, per_second: float) -> None:
        """Begin with full buckets.

        Args:
            burst: Tokens in a full bucket: so often in a row.
            per_second: Tokens that come back to a bucket in a second.
        """
        self._burst = burst
        self._per_second = per_second
        self._left: dict[Key, tuple[float, float]] = {}

    def take(self, key: Key, now: float) -> bool:
        """Take a token, if there is one.

        Args:
            key: From a closed set: every key is remembered.
            now: Seconds of a clock that never goes back.
        """
        tokens, since = self._left.get(key, (self._burst, now))
        tokens = min(tokens + (now - since) * self._per_second, self._burst)
        there = tokens >= 1
        self._left[key] = (tokens - there, now)
        return there
