"""Protocols: which gallery images are true matches of a query, and which are left out as junk."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.evaluation.labels import UNLABELED, Codes, Labeled, codes, unlabeled

SAME_CAMERA = "same identity in the same camera, and identity -1"
ONE_EACH = f"{SAME_CAMERA}; CMC over one random image of each identity"
HALVES = f"{SAME_CAMERA}; random halves of the identities, in both directions"


class Rule(NamedTuple):
    """Rules of a protocol.

    Attributes:
        junk: description of the gallery images that are left out of a query's ranking.
        invalid: default treatment of queries without a true match.
        cameras: images of the query's identity in the query's camera are junk.
        one_set: query and gallery are the same images, and the image itself is junk.
        single_shot: the CMC is the mean over galleries of one random image of each identity.
        halves: the mean over random halves of the identities, ranked in both directions.
    """

    junk: str
    invalid: str = "drop"
    cameras: bool = True
    one_set: bool = False
    single_shot: bool = False
    halves: bool = False


RULES = {
    "market1501": Rule(SAME_CAMERA),
    "cuhk03": Rule(SAME_CAMERA),
    "cuhk03-classic": Rule(ONE_EACH, single_shot=True),
    "viper": Rule(HALVES, halves=True),
    "mars": Rule(SAME_CAMERA, invalid="zero"),
    "no-camera": Rule("identity -1 only", cameras=False),
    "all-vs-all": Rule("the image itself, and identity -1", cameras=False, one_set=True),
}
TIES = {
    "index": "by gallery index",
    "optimistic": "true matches first: an upper bound",
    "pessimistic": "true matches last: a lower bound",
}


@dataclass(frozen=True)
class Protocol:
    """Protocol of a ranking. Junk is left out of a query's ranking.

    Other identities in the same camera stay. Distractors stay too: identities that no query has,
    such as Market-1501's 0. The names:

    - "market1501": junk is gallery images of the query's identity in the query's camera, and
      unlabeled images. "cuhk03" (the newer test, of 767 and 700 identities) and "mars" have the
      same rule; in "mars" queries without a true match count as 0, and its publications report
      `mAP_trapezoid`.
    - "no-camera": only unlabeled images are junk, so no image should be in both sets.
    - "all-vs-all": one set is query and gallery; the image itself and unlabeled images are junk.
    - "cuhk03-classic": as "market1501", but the CMC is the mean over `repeats` galleries of one
      random image of each identity, drawn for each query; mAP and mINP are of the whole gallery.
    - "viper": the mean over `repeats` random halves of the identities that both sides hold, each
      ranked from query to gallery and from gallery to query. It holds the whole matrix.

    Attributes:
        name: one of the above.
        invalid: queries without a true match are left out ("drop") or count as 0 ("zero", the
            default of "mars").
        ties: equal distances are ranked by gallery index ("index"), or true matches come before
            ("optimistic") or after all others ("pessimistic"): bounds of the scores of all orders.
        repeats, seed: number and seed of the draws.
        dataset: name to record.

    Raises:
        InputError: an unknown name, or `repeats` below 1.

    Example:
        >>> import numpy as np
        >>> from keras_reid.evaluation import Labels, rank
        >>> sides = Labels([7, 9], [0, 0]), Labels([7], [1])  # person 9 is not in the gallery
        >>> [rank(np.ones((2, 1)), *sides, Protocol(invalid=one)).mAP for one in ("drop", "zero")]
        [1.0, 0.5]

    Source: Zheng et al., ICCV 2015 (Market-1501); Li et al., CVPR 2014, and Zhong et al., CVPR
    2017 (CUHK03); Gray et al., PETS 2007 (VIPeR); Zheng et al., ECCV 2016 (MARS).
    """

    name: str = "market1501"
    invalid: str = ""
    ties: str = "index"
    repeats: int = 10
    seed: int = 0
    dataset: str | None = None

    def __post_init__(self) -> None:
        checks.one_of(RULES, protocol=self.name)
        if not self.invalid:
            object.__setattr__(self, "invalid", self.rule.invalid)
        checks.one_of(("drop", "zero"), invalid=self.invalid)
        checks.one_of(TIES, ties=self.ties)
        checks.at_least(1, repeats=self.repeats)

    @property
    def rule(self) -> Rule:
        """Rules of the protocol."""
        return RULES[self.name]

    @classmethod
    def of(cls, protocol: "str | Protocol") -> "Protocol":
        """Return a protocol unchanged, or the protocol with that name."""
        return protocol if isinstance(protocol, cls) else cls(str(protocol))

    def codes(self, query: Labeled, gallery: Labeled, shape: tuple[int, int]) -> Codes:
        """Return the labels of q query and g gallery images, with camera codes by the rules.

        Raises:
            InputError: labels that do not fit the shape, or missing cameras.
        """
        q, g, identities = codes(query.identity, gallery.identity, shape, "identities")
        g[unlabeled(gallery, identities[g])] = UNLABELED
        if self.rule.cameras:
            first, second, cameras = codes(query.camera, gallery.camera, shape, "cameras")
            return Codes(q, g, first, second, cameras.tolist())
        if not self.rule.one_set:
            return Codes(q, g, np.zeros(shape[0], int), np.ones(shape[1], int), [])
        if shape[0] != shape[1] or (q != g)[g != UNLABELED].any():
            raise InputError("For all-vs-all, query and gallery must be one set, but they differ.")
        return Codes(q, g, np.arange(shape[0]), np.arange(shape[1]), [])


class SingleShot:
    """Galleries of one random image of each identity: the classic test of CUHK03."""

    def __init__(self, gallery_id: np.ndarray, protocol: Protocol):
        self.order = np.argsort(gallery_id, kind="stable")
        self.order = self.order[gallery_id[self.order] != UNLABELED]
        self.identity, self.begin, self.count = np.unique(
            gallery_id[self.order], return_index=True, return_counts=True
        )
        self.repeats, self.random = protocol.repeats, np.random.default_rng(protocol.seed)

    def first_ranks(self, row: np.ndarray, identity: int, hits: np.ndarray) -> np.ndarray:
        """Return the rank of the own identity's image in each random gallery: (repeats,)."""
        drawn = self.random.random((self.repeats, len(self.identity)))
        drawn = self.order[self.begin + (drawn * self.count).astype(int)]
        own = hits[self.random.integers(len(hits), size=self.repeats)][:, None]
        others = drawn[:, self.identity != identity]
        nearer = row[others] < row[own]
        tied_before = (row[others] == row[own]) & (others < own)
        return 1 + (nearer | tied_before).sum(axis=1)
