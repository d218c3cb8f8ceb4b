"""Gallery of enrolled persons: search, identification and calibration."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.evaluation import MatchCalibration
from keras_reid.evaluation.calibration import LEAST_IMAGES, LEAST_PERSONS, distances, left_out
from keras_reid.evaluation.comparison import compare
from keras_reid.gallery.decision import (
    LIMITS,
    NOT_CALIBRATED,
    Identification,
    Limits,
    SelfCalibration,
    decide,
)
from keras_reid.gallery.records import PERSONS, Records
from keras_reid.gallery.rows import NO_FILTER, Condition, Filter, SearchResult, names
from keras_reid.names import normalized

FIRST_DEPTH = 20  # hits among which two persons are searched at first
DEEPEST = 16_384  # hits at most
SAMPLED_PERSONS = 200


class Gallery(Records):
    """Embeddings of enrolled persons, one row for each image; see `keras_reid.gallery.open`.

    Distances are `|x − y|`. The image reference identifies a row. Writes are durable when the
    method returns, unless the gallery is in memory.

    Identities, cameras and attribute names are stored and compared in Unicode NFC. Image references
    are stored unchanged, and compared in NFC: two Unicode forms of a reference are one image,
    unless they are the paths of two files.

        with gallery.open("people.db") as people:
            people.enrol(embeddings, identities, images=paths, model_fingerprint=fingerprint)
            hits = people.search(queries, top_k=10)
    """

    def describe(
        self, wanted: Mapping[str, bool], top_k: int = 10, filter: Filter = NO_FILTER
    ) -> list[SearchResult]:
        """Return the `top_k` rows that fit a description best: `{"upred": True, "hat": False}`.

        The `distance` of a result is `−mean log p` over the wanted attributes. p is the probability
        of the wanted value, at least 1e-6.

        Raises:
            InputError: `top_k` below 1, no attributes, or attributes that the gallery does not
                have.
        """
        attributes = self.attribute_names or []
        wanted = {normalized(name): value for name, value in wanted.items()}
        if not wanted or not wanted.keys() <= set(attributes):
            rule = f"at least one attribute of the gallery ({', '.join(attributes) or 'none'})"
            fix = "Models of the recipe 'attributes' predict attributes."
            raise invalid("wanted", rule, Shown(", ".join(map(str, wanted)) or "none"), fix)
        checks.at_least(1, top_k=top_k)
        columns = [attributes.index(name) for name in wanted]
        yes = np.array([bool(value) for value in wanted.values()])
        results = []
        for row in self.store.rows(filter.conditions()):
            if not row.attributes:
                continue
            p = np.array(row.attributes.split(","), np.float64)[columns]
            cost = -np.log(np.maximum(np.where(yes, p, 1 - p), 1e-6)).mean()
            results.append(SearchResult(*row[:4], float(cost) + 0.0))
        return heapq.nsmallest(top_k, results, key=lambda hit: (hit.distance, hit.image))

    # More arguments than elsewhere: each option of a search is one.
    def search(
        self,
        embeddings: Any,
        top_k: int = 10,
        filter: Filter = NO_FILTER,
        *,
        query_cameras: Sequence[Any] | None = None,
        model_fingerprint: str | None = None,
        reranking: str = "none",
        shortlist: int = 1000,
        reranking_options: dict[str, Any] | None = None,
    ) -> list[list[SearchResult]]:
        """Return the `top_k` nearest rows of each query, nearest first, or all that fit the filter.

        Args:
            embeddings: (q, d) finite numbers.
            top_k: at most the number of rows.
            filter: conditions of the rows to compare.
            query_cameras: (q,) cameras of the queries. Rows of the same camera are
                excluded; "" or None excludes none.
            model_fingerprint: must be that of the gallery.
            reranking: "none", or a name in `keras_reid.reranking.RERANKERS`. Each query is
                re-ranked separately, among its `shortlist` nearest rows. Results keep their
                distances, and have `reranked`.
            shortlist: number of rows to re-rank, at least `top_k`; all if there are fewer.
            reranking_options: options of the re-ranker, such as `{"k1": 20}`.

        Raises:
            InputError: an empty gallery, a larger `top_k`, embeddings that do not fit, or unknown
                options.
        """
        x = self._checked(embeddings, model_fingerprint)
        count = self.store.count()
        if not count:
            raise InputError("The gallery is empty. Enrol images first.")
        if not isinstance(top_k, int | np.integer) or not 1 <= top_k <= count:
            raise invalid("top_k", f"from 1 to {count:,}, the size of the gallery", top_k)
        options = reranking_options or {}
        if reranking == "none":
            if options:
                raise invalid("reranking", "a re-ranker if there are options for it", reranking)
            return self._nearest(x, int(top_k), filter, query_cameras)
        checks.at_least(top_k, "It includes the `top_k` results.", shortlist=shortlist)
        lists = self._nearest(x, min(int(shortlist), count), filter, query_cameras)
        return [
            self._reranked(query, hits, reranking, options)[:top_k]
            for query, hits in zip(x, lists, strict=True)
        ]

    def _nearest(
        self, x: np.ndarray, top_k: int, filter: Filter, query_cameras: Sequence[Any] | None
    ) -> list[list[SearchResult]]:
        cameras = np.array(names(query_cameras, len(x), "query_cameras"), object)
        results: list[list[SearchResult]] = [[] for _ in x]
        for camera in sorted(set(cameras)):
            chosen = np.flatnonzero(cameras == camera)
            own: list[Condition] = [("camera", "not in", [camera])] if camera else []
            lists = self.store.search(x[chosen], top_k, [*filter.conditions(), *own])
            for i, hits in zip(chosen, lists, strict=True):
                results[i] = hits
        return results

    def _reranked(
        self, query: np.ndarray, hits: list[SearchResult], name: str, options: dict[str, Any]
    ) -> list[SearchResult]:
        if not hits:
            return hits
        x = self.store.embeddings([hit.image for hit in hits])
        distances = compare(query[None], x, reranking=name, **options).rows(0, 1)[0]
        order = np.argsort(distances, kind="stable")
        return [hits[i]._replace(reranked=float(distances[i])) for i in order]

    def identify(
        self, embeddings: Any, top_k: int = 1, *, limits: Limits = LIMITS, **search: Any
    ) -> list[Identification]:
        """Search for each query, and decide whether the nearest person is the person of the query.

        Args:
            embeddings: (q, d) finite numbers.
            top_k: number of hits of each query, at most the number of rows.
            limits: probabilities of a match and of a possible match.
            search: other arguments of `search`.

        Raises:
            InputError: as `search`, or the gallery has no calibration.
        """
        calibration = self.required_calibration()
        x = self._checked(embeddings, search.get("model_fingerprint"))
        persons = self.persons()
        images = self.count() / max(1, persons)
        return [
            Identification(decide(hits, calibration, persons, images, limits), hits[:top_k])
            for hits in self._two_persons(x, max(top_k, FIRST_DEPTH), **search)
        ]

    def _two_persons(
        self,
        x: np.ndarray,
        depth: int,
        query_cameras: Sequence[Any] | None = None,
        shortlist: int = 1000,
        **search: Any,
    ) -> list[list[SearchResult]]:
        """Search deeper for queries with hits of one person, because decisions compare two."""
        depth = min(depth, max(1, count := self.count()))
        wide = max(depth, shortlist)
        cameras = None if query_cameras is None else [*query_cameras]
        lists = self.search(x, depth, query_cameras=cameras, shortlist=wide, **search)
        one = [i for i, hits in enumerate(lists) if len({hit.identity for hit in hits}) == 1]
        if one and depth < min(count, DEEPEST):
            cameras = cameras and [cameras[i] for i in one]
            deeper = self._two_persons(
                x[one], min(8 * depth, DEEPEST), cameras, shortlist, **search
            )
            for i, hits in zip(one, deeper, strict=True):
                lists[i] = hits
        return lists

    def required_calibration(self) -> MatchCalibration:
        """Return the calibration; raise `InputError` without one."""
        calibration = self.calibration
        if calibration is None:
            raise InputError(NOT_CALIBRATED)
        return calibration

    def calibrate(self) -> SelfCalibration | None:
        """Adapt the calibration to the images of the gallery, leaving one image out at a time.

        At most 200 persons and 8 images of each are used, drawn at random.

        Returns:
            The calibration before and after the adaptation, and its searches; None if fewer than 5
            persons have at least 2 images.

        Raises:
            InputError: the gallery has no calibration of its model.
        """
        before = self.required_calibration()
        counts = self.identities()
        self.store.save_settings({**self.store.settings(), PERSONS: len(counts)})
        several = sorted(name for name, images in counts.items() if images >= LEAST_IMAGES)
        if len(several) < LEAST_PERSONS:
            return None
        chosen = np.random.default_rng(0).permutation(several)[:SAMPLED_PERSONS]
        rows = list(self.store.rows([("identity", "in", chosen.tolist())]))
        x, owner = self.store.embeddings([row.image for row in rows]), [r.identity for r in rows]
        after = self.calibration = before.adapt(x, owner, seed=0)
        searches = left_out(*distances(x, owner, seed=0))
        return SelfCalibration(replace(before, scale=1.0, offset=0.0), after, searches)

    def stats(self) -> dict[str, Any]:
        """Return facts about the gallery as plain values."""
        calibration = self.calibration
        return {
            "rows": self.count(),
            "identities": len(self.identities()),
            "width": self.width,
            "fingerprint": self.fingerprint,
            "calibration": None if calibration is None else calibration.to_dict(),
            **self.store.stats(),
        }
