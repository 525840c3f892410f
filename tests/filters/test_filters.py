"""The two filters of the synchronous variant."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzsgd.filters import COEFFICIENTS_KEPT, LipschitzFilter, outliers_bound

coefficients = st.floats(0, 1e6)


def test_everything_passes_while_nothing_was_seen() -> None:
    """There is no quantile of nothing."""
    lipschitz = LipschitzFilter(5, 1)

    assert lipschitz.limit() == inf
    assert lipschitz.accepts(1e9)


def test_the_limit_is_a_quantile_of_all_that_was_seen() -> None:
    """The (n_ps - f_ps) / n_ps quantile: of 0..10 with 5 servers and one liar, 8."""
    lipschitz = LipschitzFilter(5, 1)
    for k in range(11):
        lipschitz.note(k)

    assert lipschitz.limit() == 8
    assert lipschitz.accepts(8)
    assert not lipschitz.accepts(8.1)


def test_refused_ones_were_seen_too() -> None:
    """All observed k, not only the accepted: otherwise the quantile creeps downwards."""
    lipschitz = LipschitzFilter(4, 1)
    for k in (1, 1, 1, 1, 5, 5, 5, 5):
        lipschitz.note(k)
    for _ in range(4):
        assert not lipschitz.accepts(9)

    assert lipschitz.accepts(9)


@pytest.mark.parametrize("k", [float("nan"), inf])
def test_what_is_no_number_does_not_pass(k: float) -> None:
    """And it is forgotten, or nothing else would pass for a thousand steps."""
    lipschitz = LipschitzFilter(4, 1)
    for each in (1, 1, 1, k):
        lipschitz.note(each)

    assert not lipschitz.accepts(k)
    assert lipschitz.limit() == 1


@given(st.lists(coefficients, min_size=20, max_size=200), st.integers(1, 3))
def test_the_filter_refuses_about_f_ps_of_n_ps(seen: list[float], f_servers: int) -> None:
    """Of what it has seen, no more than f_ps / n_ps lies above the limit."""
    n_servers = 3 * f_servers + 2
    lipschitz = LipschitzFilter(n_servers, f_servers)
    for k in seen:
        lipschitz.note(k)
    above = sum(k > lipschitz.limit() * (1 + 1e-9) for k in seen)

    assert above <= len(seen) * f_servers / n_servers + 1


def test_old_coefficients_are_forgotten() -> None:
    """A training of months keeps a bounded number of them."""
    lipschitz = LipschitzFilter(5, 1)
    lipschitz.note(1e9)
    for _ in range(COEFFICIENTS_KEPT):
        lipschitz.note(1)

    assert lipschitz.limit() == 1
    assert len(lipschitz._seen) == COEFFICIENTS_KEPT


@pytest.mark.parametrize(
    ("step", "period", "expected"),
    [
        (1, 5, 17 * 5 / 8),
        (4, 5, 17 * 5 / 8 + 6),
        (6, 5, 17 * 5 / 8),
        (9, 10, 32 * 5 / 8 + 16),
    ],
)
def test_the_bound_of_the_outliers_filter(step: int, period: int, expected: float) -> None:
    """eta_a ||g_a|| ((3T + 2)(n_w - f_w) / (4 f_w) + 2 ((t - 1) mod T)), here with 7 and 2."""
    bound = outliers_bound(step, gather_period=period, n_workers=7, f_workers=2, stride=0.5)

    assert bound == pytest.approx(0.5 * expected)


def test_where_no_worker_lies_nothing_is_an_outlier() -> None:
    """The servers then move no further than correct gradients take them, however long that is."""
    assert outliers_bound(3, gather_period=5, n_workers=7, f_workers=0, stride=1.0) == inf


@given(st.lists(coefficients, max_size=50), coefficients)
def test_the_filter_depends_on_what_it_saw_alone(seen: list[float], k: float) -> None:
    """Two workers that saw the same accept the same, whatever the order."""
    one, other = LipschitzFilter(5, 1), LipschitzFilter(5, 1)
    for each in seen:
        one.note(each)
    for each in reversed(seen):
        other.note(each)

    assert np.isclose(one.limit(), other.limit()) or one.limit() == other.limit() == inf
    assert one.accepts(k) == other.accepts(k) or np.isclose(k, one.limit())
