"""Argument checks: accepted values, rejected values and error messages."""

import math

import numpy as np
import pytest

from keras_reid import checks
from keras_reid.errors import InputError


@pytest.mark.parametrize(
    ("check", "good", "bad", "rule"),
    [
        (lambda x: checks.one_of(("a", "b"), x=x), ["a", "b"], ["c", "", None], "one of a, b"),
        (lambda x: checks.at_least(1, x=x), [1, 1.5, np.int64(3)], [0, math.inf], "at least 1"),
        (lambda x: checks.above(0, x=x), [1e-9, 5], [0, -1, math.inf], "positive"),
        (lambda x: checks.within("[0, 1]", x=x), [0, 0.5, 1], [-0.1, 1.1], r"in \[0, 1\]"),
        (lambda x: checks.within("[0, 1)", x=x), [0, 0.99], [1, -1], r"in \[0, 1\)"),
        (lambda x: checks.within("(0, 2]", x=x), [0.1, 2], [0, 2.1], r"in \(0, 2\]"),
        (
            lambda x: checks.whole(2, x=x),
            [2, np.int32(9)],
            [1, 2.0, 2.5],
            "an integer of at least 2",
        ),
    ],
)
def test_checks_accept_valid_and_reject_invalid_values(check, good, bad, rule):
    for value in good:
        check(value)
    for value in (*bad, math.nan):
        with pytest.raises(InputError, match=f"`x` must be {rule}.*, got .*[.]$") as refused:
            check(value)
        assert refused.value.argument == "x"


def test_checks_custom_fix_is_in_message():
    with pytest.raises(InputError, match=r"^`k` must be at least 1, got 0[.] 20 is usual[.]$"):
        checks.at_least(1, "20 is usual.", k=0)
