"""Losses in docs/migrating.md build and match the tested TensorFlow Addons equivalents."""

import math
import re

import numpy as np
import pytest
from conftest import ROOT
from test_tfa import build

from keras_reid import losses
from keras_reid.losses import MetricLoss

TEXT = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")
LINES = sorted(set(re.findall(r"`(losses\.\w+\([^`]*\))`", TEXT)))
LABELS = np.array([0, 0, 1, 1])
POINTS = np.array([[0, 1], [2, 0], [1, 1], [3, 1]], "float32")
NAMES = {"losses": losses, "math": math, "c": 751}


def built(line):
    return eval(line, NAMES)


@pytest.mark.parametrize("line", LINES)
def test_migrating_page_loss_lines_build(line):
    loss = built(line)
    if isinstance(loss, MetricLoss) and 'pairs="given"' not in line:
        assert float(loss(LABELS, POINTS)) > 0


@pytest.mark.parametrize(
    ("line", "case"),
    [
        ("losses.TripletHardLoss(1.0, zero_for_missing=True)", ("hard", "L2", "1.0")),
        ('losses.TripletHardLoss("soft", zero_for_missing=True)', ("soft", "L2", "-")),
        ("losses.TripletSemiHardLoss(1.0, zero_for_missing=True)", ("semihard", "L2", "1.0")),
        (
            'losses.ContrastiveLoss(1.0, pairs="given", reduce_pairs="all")',
            ("contrastive", "given", "1.0"),
        ),
    ],
)
def test_migrating_page_tfa_lines_match_compared_losses(line, case):
    assert line in LINES
    ours, compared = built(line), build(*case)
    assert type(ours) is type(compared)
    assert {**ours.get_config(), "name": ""} == {**compared.get_config(), "name": ""}
