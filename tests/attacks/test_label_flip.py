"""Correct work on wrong data."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.label_flip import LabelFlip


def test_the_gradient_on_flipped_labels(view: Callable[..., View]) -> None:
    """The lie is what a correct worker with flipped labels would send."""
    seen = view()
    assert seen.flipped is not None

    np.testing.assert_array_equal(LabelFlip().forge(seen, "s1"), seen.flipped())


def test_without_labels(view: Callable[..., View]) -> None:
    """Where nobody can flip labels, forging is a bug of whoever made the coalition."""
    with pytest.raises(AssertionError, match="label-flip"):
        LabelFlip().forge(replace(view(), flipped=None), "s1")
