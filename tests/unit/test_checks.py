"""Argument checks: accepted values, rejected values and error messages."""

import math
import re

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
            lambda x: checks.margin(x=x),
            [0, 0.3, "soft"],
            [-1.0, "hard", None, math.inf],
            'a number of at least 0 or "soft"',
        ),
        (
            lambda x: checks.margin(False, x=x),
            [0, 0.3],
            ["soft", None],
            "a number of at least 0",
        ),
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


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        ({"x": ("(n, n)", (3, 3))}, {"x": ("(n, n)", (3, 4))}, "(n, n), got (3, 4)"),
        ({"x": ("(n, d)", (None, 4))}, {"x": ("(n, d)", (4,))}, "(n, d), got (4,)"),
        ({"x": ("(…, k, 3)", (9, 2, 3))}, {"x": ("(…, k, 3)", (3,))}, "(…, k, 3), got (3,)"),
        ({"x": ("(2, …)", (2, 3))}, {"x": ("(2, …)", (3, 2))}, "(2, …), got (3, 2)"),
        (
            {"a": ("(n, d)", (3, 4)), "x": ("(m, d)", (9, None))},
            {"a": ("(n, d)", (3, 4)), "x": ("(m, d)", (9, 5))},
            "(m, 4), got (9, 5)",
        ),
    ],
)
def test_shapes_other_sizes_or_axes_raise(good, bad, rule):
    checks.shapes(**good)
    with pytest.raises(InputError, match=re.escape(f"`x` must be of shape {rule}. Pool it.")):
        checks.shapes("Pool it.", **bad)


def test_checks_custom_fix_is_in_message():
    with pytest.raises(InputError, match=r"^`k` must be at least 1, got 0[.] 20 is usual[.]$"):
        checks.at_least(1, "20 is usual.", k=0)
