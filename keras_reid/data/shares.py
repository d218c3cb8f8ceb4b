"""Shares of sources and identities in an epoch of PK batches.

An epoch has P·B places for groups of K images, in B batches. The places are divided among the
sources by their weights. The places of a source are divided among its identities in proportion to
their images. A share is not an integer: an identity with a share of 0.3 has a place in three of ten
epochs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keras_reid import checks
from keras_reid.data.images import SOURCE, PersonImages
from keras_reid.errors import Shown, invalid

ONE = 2**20  # a share of one place; shares are integers, so that their sums are exact
# Weight of a source by the number of groups of its images.
WEIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "proportional": np.asarray,
    "balanced": np.ones_like,
    "sqrt": np.sqrt,
}
BATCHES = ("mixed", "single")


@dataclass(frozen=True)
class Shares:
    """Places of identities in an epoch.

    Attributes:
        source: (c,) index of the source of each identity.
        share: (c,) expected number of places of each identity, in units of 1/`ONE`. The sum over a
            source is a multiple of `ONE`.
        blocks: numbers of batches: (B,) if each batch has identities of all sources, else those of
            each source.
    """

    source: np.ndarray
    share: np.ndarray
    blocks: tuple[int, ...]


def source_of_classes(
    images: PersonImages, classes: np.ndarray, sampling: str, batches: str
) -> np.ndarray:
    """Return the index (c,) of the source of each class.

    Args:
        images: n images with a column "source".
        classes: (n,) class of each image, 0 to c − 1.
        sampling: value for the error of images without that column.
        batches: value for that error.
    """
    if SOURCE not in images.columns:
        rule = "{} for images of one data set"
        if sampling != "proportional":
            raise invalid("source_sampling", rule.format("proportional"), sampling)
        raise invalid("source_batches", rule.format("mixed"), batches)
    first = np.unique(classes, return_index=True)[1]
    return np.unique(images.columns[SOURCE][first], return_inverse=True)[1]


def shares_of(
    groups: np.ndarray,
    source: np.ndarray,
    size: tuple[int, int],
    sampling: str = "balanced",
    batches: str = "mixed",
) -> Shares:
    """Return the shares of c identities of S sources.

    Args:
        groups: (c,) number of groups of K images of each identity.
        source: (c,) index of the source of each identity, 0 to S − 1.
        size: P, identities in a batch, and B, batches in an epoch.
        sampling: weight of a source with n groups: "proportional" (n), "balanced" (1) or "sqrt"
            (√n). An identity has at most one place in a batch, so a source with few identities can
            have a smaller share.
        batches: "mixed", each batch has places of all sources as far as possible; or "single", each
            batch has identities of one source.

    Raises:
        InputError: unknown values, or a source with fewer than P identities for single batches.
    """
    checks.one_of(WEIGHTS, source_sampling=sampling)
    checks.one_of(BATCHES, source_batches=batches)
    p, b = size
    identities = np.bincount(source)
    weights = WEIGHTS[sampling](np.bincount(source, groups))
    if batches == "mixed":
        places = _rounded(_filled(weights, identities * b, p * b))
        blocks, most = (b,), np.full(len(identities), b)
    else:
        if identities.min() < p:
            fix = "Choose smaller batches, or source_batches=mixed."
            received = Shown(f"{identities.min()} in one source, for batches of {p} identities")
            raise invalid("images", "images of enough identities in each source", received, fix)
        most = _rounded(b * weights / weights.sum())
        while most.min() == 0:  # each source has a batch
            most[most.argmax()] -= 1
            most[most.argmin()] += 1
        places, blocks = p * most, tuple(most.tolist())
    share = np.zeros(len(groups), np.int64)
    for number, count in enumerate(places):
        own = source == number
        share[own] = _shared(groups[own], most[number], count)
    return Shares(source, share, blocks)


def _shared(groups: np.ndarray, most: int, places: int) -> np.ndarray:
    """Return the shares of the identities of a source, at most `most` places each."""
    share = np.floor(ONE * _filled(groups, np.full(len(groups), most), places)).astype(np.int64)
    missing = int(places * ONE - share.sum())
    share[np.flatnonzero(share < most * ONE)[:missing]] += 1
    return share


def _filled(weights: np.ndarray, most: np.ndarray, total: float) -> np.ndarray:
    """Return `min(t · weights, most)` with the sum `total`, of at most the sum of `most`."""
    order = np.argsort(most / weights, kind="stable")
    full = np.cumsum(most[order]) - most[order]
    factor = (total - full) / np.cumsum(weights[order][::-1])[::-1]
    fits = np.flatnonzero(factor * weights[order] <= most[order])
    return np.minimum(weights * (factor[fits[0]] if len(fits) else np.inf), most)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round to integers with the same sum: the largest fractions are rounded up."""
    whole = np.floor(values + 1e-9).astype(np.int64)
    missing = round(values.sum()) - whole.sum()
    whole[np.argsort(whole - values, kind="stable")[:missing]] += 1
    return whole
