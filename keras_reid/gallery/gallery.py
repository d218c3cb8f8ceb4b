"""Gallery of enrolled persons: checks of rows and queries, search and identification."""

import heapq
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

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
from keras_reid.gallery.rows import (
    NO_FILTER,
    Filter,
    Row,
    SearchResult,
    checked_rows,
    label,
    names,
    unprintable,
)
from keras_reid.names import normalized, one_image
from keras_reid.nearest.arrays import checked_features

if TYPE_CHECKING:
    from keras_reid.gallery.database import DatabaseStore
    from keras_reid.gallery.milvus import MilvusStore

    Store = DatabaseStore | MilvusStore

FIRST_DEPTH = 20  # hits among which two persons are searched at first
DEEPEST = 16_384  # hits at most
PERSONS = "persons"  # setting: their number, which Milvus counts slowly; removed by each write
SAMPLED_PERSONS = 200


class Changes(NamedTuple):
    """Comparison of n images with the rows of a gallery, as masks (n,).

    Attributes:
        new: the gallery has no row of the image.
        replaced: the content differs, or is unknown on either side.
        moved: the identity, the camera or the time differs.
    """

    new: np.ndarray
    replaced: np.ndarray
    moved: np.ndarray


class Gallery:
    """Embeddings of enrolled persons, one row for each image; see `keras_reid.gallery.open`.

    Distances are `|x − y|`. The image reference identifies a row. Writes are durable when the
    method returns, unless the gallery is in memory.

    Identities, cameras and attribute names are stored and compared in Unicode NFC. Image references
    are stored unchanged, and compared in NFC: two spellings of a reference are one image, unless
    they are the paths of two files.

        with gallery.open("people.db") as people:
            people.enrol(embeddings, identities, images=paths, model_fingerprint=fingerprint)
            hits = people.search(queries, top_k=10)
    """

    def __init__(self, store: "Store") -> None:
        self._store: Store | None = store
        settings = store.settings()
        if settings.pop("threshold", None) is not None:  # of version 0.2.0
            store.save_settings(settings)
            logging.warning(
                "This gallery has the distance threshold of an earlier version, which is no longer "
                "used. To adapt decisions to its images, run search.py calibrate."
            )

    @property
    def store(self) -> "Store":
        """Back end of an open gallery."""
        if self._store is None:
            raise InputError("This gallery is closed. Open it again.")
        return self._store

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release files and connections; a second call has no effect."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def width(self) -> int | None:
        """Embedding size d; None before the first enrolment."""
        return self.store.settings().get("width")

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the model of the embeddings; None before the first enrolment."""
        return self.store.settings().get("fingerprint")

    @property
    def attribute_names(self) -> list[str] | None:
        """Names of the attributes for `describe`; None before any were enrolled."""
        values = self.store.settings().get("attribute_names")
        return None if values is None else [normalized(name) for name in values]

    @property
    def calibration(self) -> MatchCalibration | None:
        """Calibration of decisions; assign that of the model, see `keras_reid.evaluation`.

        Raises:
            InputError: another value is assigned.
        """
        values = self.store.settings().get("calibration")
        return None if values is None else MatchCalibration.of(values, "the gallery")

    @calibration.setter
    def calibration(self, calibration: MatchCalibration | None) -> None:
        if not (calibration is None or isinstance(calibration, MatchCalibration)):
            rule = "a keras_reid.evaluation.MatchCalibration"
            raise invalid("calibration", rule, calibration, "Fit one with fit_calibration(…).")
        values = None if calibration is None else calibration.to_dict()
        self.store.save_settings({**self.store.settings(), "calibration": values})

    def calibrate(self) -> SelfCalibration | None:
        """Adapt the calibration to the images of the gallery, leaving one image out at a time.

        In large galleries, 200 persons with 8 images each are used.

        Returns:
            The searches of the adaptation; None if the gallery has fewer than 5 persons with 2
            images.

        Raises:
            InputError: the gallery has no calibration of its model.
        """
        before = self.calibration
        if before is None:
            raise InputError(NOT_CALIBRATED)
        counts = self.identities()
        self.store.save_settings({**self.store.settings(), PERSONS: len(counts)})
        several = sorted(name for name, images in counts.items() if images >= LEAST_IMAGES)
        if len(several) < LEAST_PERSONS:
            return None
        chosen = np.random.default_rng(0).permutation(several)[:SAMPLED_PERSONS]
        x, owner = self.store.of(chosen.tolist())
        after = self.calibration = before.adapt(x, owner, seed=0)
        searches = left_out(*distances(x, owner, seed=0))
        return SelfCalibration(replace(before, scale=1.0, offset=0.0), after, searches)

    def enrol(
        self,
        embeddings: Any,
        identities: Sequence[Any],
        cameras: Sequence[Any] | None = None,
        times: Sequence[float | None] | None = None,
        images: Sequence[str] | None = None,
        *,
        model_fingerprint: str,
        existing: str = "refuse",
        attributes: Any = None,
        attribute_names: Sequence[str] | None = None,
        digests: Sequence[str] | None = None,
    ) -> int:
        """Add rows durably and return their number.

        Args:
            embeddings: (n, d) finite numbers.
            identities: (n,) texts or integers, not empty; no text has control characters.
            cameras: (n,) texts or integers, "" or None where unknown; None: all unknown.
            times: (n,) seconds, None or NaN where unknown; None: all unknown.
            images: (n,) distinct references to the images, such as their paths; None creates
                `IDENTITY#1`, `IDENTITY#2`, … after the existing ones.
            model_fingerprint: of the model of the embeddings, `fingerprint` in its `export.json`;
                the first enrolment sets that of the gallery.
            existing: "refuse", "skip" or "replace", for images that the gallery holds.
            attributes: (n, m) probabilities, for `describe`; None: unknown.
            attribute_names: (m,); the first enrolment with attributes sets those of the gallery.
            digests: (n,) digests of the image files, "" where unknown, such as
                `keras_reid.io.content_digest` returns, for `changes`; None: all unknown.

        Raises:
            InputError: columns that do not fit, another embedding size or model than the gallery's,
                or an image that occurs twice or is enrolled. No row is added.
        """
        if not model_fingerprint or not isinstance(model_fingerprint, str):
            rule = "the fingerprint of a model, as in export.json"
            raise invalid("model_fingerprint", rule, model_fingerprint)
        checks.one_of(("refuse", "skip", "replace"), existing=existing)
        x = self._checked(embeddings, model_fingerprint)
        references = self._numbered(identities, len(x)) if images is None else images
        rows = checked_rows(len(x), identities, cameras, times, references, digests)
        texts = self._attributes(len(x), attributes, attribute_names)
        rows = [row._replace(attributes=text) for row, text in zip(rows, texts, strict=True)]
        held = {} if images is None else self._held(rows)
        if held and existing == "refuse":
            received = Shown(f"{len(held)} of {len(rows)} in the gallery, such as {min(held)!r}")
            raise invalid("images", "new", received, "Omit them, or pass existing='skip'.")
        if held and existing == "skip":
            new = [i for i, row in enumerate(rows) if row.image not in held]
            x, rows, held = x[new], [rows[i] for i in new], {}
        if rows:
            model: dict[str, Any] = {"width": x.shape[1], "fingerprint": model_fingerprint}
            if attribute_names is not None:
                model["attribute_names"] = [normalized(name) for name in attribute_names]
            self._before_writing(model)
            if held:
                self.store.replace([row.image for row in held.values()], x, rows)
            else:
                self.store.add(x, rows)
        return len(rows)

    def _before_writing(self, model: dict[str, Any]) -> None:
        """Save new settings, and remove the number of persons."""
        before = self.store.settings()
        settings = {**model, **before}
        settings.pop(PERSONS, None)
        if settings != before:
            self.store.save_settings(settings)

    def _numbered(self, identities: Sequence[Any], count: int) -> list[str]:
        taken = self.store.identities() if self.store.count() else {}
        references: dict[str, None] = {}
        for name in names(identities, count, "identities", empty=False):
            number = taken.get(name, 0) + 1
            while (image := f"{name}#{number}") in references or self.store.held([image]):
                number += 1
            taken[name] = number
            references[image] = None
        return list(references)

    def _held(self, rows: Sequence[Row]) -> dict[str, Row]:
        """Return the rows of the gallery by the image references of these rows."""
        return self._held_images([row.image for row in rows])

    def _held_images(self, images: list[str]) -> dict[str, Row]:
        rows = self.store.held(images)
        return {i: row for i, row in rows.items() if row.image == i or one_image(row.image, i)}

    def changes(
        self,
        images: Sequence[str],
        identities: Sequence[Any],
        cameras: Sequence[Any] | None = None,
        times: Sequence[float | None] | None = None,
        digests: Sequence[str] | None = None,
    ) -> Changes:
        """Compare images, their labels and their content with the rows of the gallery.

        Args:
            images, identities, cameras, times, digests: (n,), as in `enrol`. Unknown cameras and
                times are not compared.

        Raises:
            InputError: columns that do not fit.
        """
        rows = checked_rows(len(images), identities, cameras, times, images, digests)
        held = self._held(rows)
        new, replaced, moved = np.zeros((3, len(rows)), bool)
        for i, row in enumerate(rows):
            own = held.get(row.image)
            if own is None:
                new[i] = True
            else:
                replaced[i] = not row.digest or row.digest != own.digest
                moved[i] = own.relabeled(row) != own
        return Changes(new, replaced, moved)

    def relabel(
        self,
        images: Sequence[str],
        identities: Sequence[Any],
        cameras: Sequence[Any] | None = None,
        times: Sequence[float | None] | None = None,
    ) -> int:
        """Set the identities, cameras and times of enrolled images, and return their number.

        Args:
            images: (n,) references. Images without a row are skipped.
            identities, cameras, times: (n,), as in `enrol`. An unknown camera or time leaves that
                of the row.

        Raises:
            InputError: columns that do not fit.
        """
        rows = checked_rows(len(images), identities, cameras, times, images)
        held = self._held(rows)
        moved = [held[row.image].relabeled(row) for row in rows if row.image in held]
        if moved:
            references = [row.image for row in moved]
            x = self.store.embeddings(references)
            self._before_writing({})
            self.store.replace(references, x, moved)
        return len(moved)

    def _attributes(self, count: int, values: Any, given: Sequence[str] | None) -> list[str]:
        """Return the probabilities of each row as text."""
        if values is None and given is None:
            return [""] * count
        shares = np.asarray([] if values is None else values, np.float64)
        texts = [normalized(str(name)) for name in ([] if given is None else given)]
        if shares.shape != (count, len(texts)) or not ((shares >= 0) & (shares <= 1)).all():
            rule = f"probabilities in the shape ({count}, {len(texts)}), a column for each name"
            raise invalid("attributes", rule, Shown(f"the shape {shares.shape}"))
        checks.one_of([str(self.attribute_names or texts)], attribute_names=str(texts))
        return [",".join(f"{p:.4g}" for p in row) for row in shares.tolist()]

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
        known = self.attribute_names or []
        wanted = {normalized(name): value for name, value in wanted.items()}
        if not wanted or not wanted.keys() <= set(known):
            rule = f"attributes of the gallery ({', '.join(known) or 'none'})"
            fix = "A model of the recipe attributes predicts them."
            raise invalid("wanted", rule, Shown(", ".join(map(str, wanted)) or "none"), fix)
        checks.at_least(1, top_k=top_k)
        columns = [known.index(name) for name in wanted]
        yes = np.array([bool(value) for value in wanted.values()])
        results = []
        for row in self.store.described(filter):
            p = np.array(row.attributes.split(","), np.float64)[columns]
            cost = -np.log(np.maximum(np.where(yes, p, 1 - p), 1e-6)).mean()
            results.append(SearchResult(*row[:4], float(cost) + 0.0))
        return heapq.nsmallest(top_k, results, key=lambda hit: (hit.distance, hit.image))

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
        """Return the `top_k` nearest rows of each query, nearest first; fewer if the filter does.

        Args:
            embeddings: (q, d) finite numbers.
            top_k: at most the number of rows.
            filter: the rows to compare.
            query_cameras: (q,) cameras of the queries. Rows of the same camera are
                excluded; "" or None excludes none.
            model_fingerprint: must be that of the gallery.
            reranking: "none", or a name in `keras_reid.reranking.RERANKERS`. Each query is
                re-ranked on its own, among its `shortlist` nearest rows. Results keep their
                distances, and have `reranked`.
            shortlist: number of rows to re-rank, at least `top_k`; all if there are fewer.
            reranking_options: of the re-ranker, such as `{"k1": 20}`.

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
                raise invalid("reranking", "a re-ranker, because it has options", reranking)
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
        if query_cameras is None:
            return self.store.search(x, top_k, filter)
        cameras = np.array(names(query_cameras, len(x), "query_cameras"), object)
        results: list[list[SearchResult]] = [[] for _ in x]
        for camera in sorted(set(cameras)):
            chosen = np.flatnonzero(cameras == camera)
            lists = self.store.search(x[chosen], top_k, filter.without(camera))
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
        calibration = self.calibration
        if calibration is None:
            raise InputError(NOT_CALIBRATED)
        x = self._checked(embeddings, search.get("model_fingerprint"))
        persons, count = self.persons(), self.count()
        given = search.pop("query_cameras", None)
        cameras = np.array([""] * len(x) if given is None else [*given], object)
        shortlist = search.pop("shortlist", 1000)
        results: list[list[SearchResult]] = [[] for _ in x]
        waiting, depth = np.arange(len(x)), max(top_k, FIRST_DEPTH)
        # Decisions compare two persons, so queries with hits of one person are searched deeper.
        while len(waiting):
            lists = self.search(
                x[waiting],
                min(depth, max(1, count)),
                query_cameras=cameras[waiting].tolist(),
                shortlist=max(depth, shortlist),
                **search,
            )
            for i, hits in zip(waiting, lists, strict=True):
                results[i] = hits
            full = depth >= min(count, DEEPEST)
            one = [not full and len({hit.identity for hit in hits}) == 1 for hits in lists]
            waiting, depth = waiting[one], min(8 * depth, DEEPEST)
        images = count / max(1, persons)
        return [
            Identification(decide(hits, calibration, persons, images, limits), hits[:top_k])
            for hits in results
        ]

    def persons(self) -> int:
        """Return the number of identities."""
        persons = self.store.settings().get(PERSONS)
        return len(self.identities()) if persons is None else persons

    def remove(self, identity: Any) -> int:
        """Erase all rows of an identity, a text or integer, and return their number.

        Raises:
            InputError: another value.
        """
        name = normalized(label(identity, "identity"))
        if unprintable(name):
            return 0
        self._before_writing({})
        return self.store.remove(name)

    def count(self) -> int:
        """Return the number of rows."""
        return self.store.count()

    def contains(self, images: Sequence[str]) -> set[str]:
        """Return the image references that are enrolled."""
        texts = [str(image) for image in images]
        return {*self._held_images([text for text in texts if not unprintable(text)])}

    def identities(self) -> dict[str, int]:
        """Return the number of rows of each identity, by name."""
        return self.store.identities()

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

    def _checked(self, embeddings: Any, fingerprint: str | None) -> np.ndarray:
        """Return the embeddings; raise unless they are of the model of the gallery."""
        x = checked_features(embeddings, 2, "embedding")
        own, width = self.fingerprint, self.width
        if None not in (own, fingerprint) and fingerprint != own:
            rule = f"{own!r}, the model of the gallery"
            raise invalid("model_fingerprint", rule, fingerprint, "Use that model.")
        if width not in (None, x.shape[1]):
            raise invalid("embeddings", f"of size {width}, as in the gallery", Shown(x.shape[1]))
        return x
