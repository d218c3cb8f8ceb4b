"""Gallery of enrolled persons: checks of rows and queries, search and identification."""

import heapq
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, printable
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
from keras_reid.gallery.store import NO_FILTER, Filter, Labels, Rows, SearchResult, label
from keras_reid.names import normalized, one_image, repeated
from keras_reid.nearest.arrays import checked_features

if TYPE_CHECKING:
    from keras_reid.gallery.arrays import ArrayStore
    from keras_reid.gallery.milvus import MilvusStore

    Store = ArrayStore | MilvusStore

SECOND = 20  # hits among which two persons are looked for at first
DEEPEST = 16_384  # hits at most
PERSONS = "persons"  # setting: their number, which Milvus counts slowly; removed by each write
SAMPLED_PERSONS = 200
LONGEST_TEXT = 1000  # characters; Milvus holds 4,096 bytes


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
    """Embeddings of known people, one row for each image; see `keras_reid.gallery.open`.

    Distances are `|x − y|`. Rows are known by their image reference, which occurs once. What a
    method has returned from is durable, unless the gallery is in memory.

    Identities, cameras and attribute names are kept and compared in Unicode NFC. Image references
    are kept as they are, and compared in NFC: two spellings of a reference are one image, unless
    they are the paths of two files.

        with gallery.open("people.db") as people:
            people.enrol(embeddings, identities, images=paths, model_fingerprint=fingerprint)
            hits = people.search(queries, k=10)
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
        """The back end of an open gallery."""
        if self._store is None:
            raise InputError("a closed gallery answers nothing: open it again")
        return self._store

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees files and connections; a second call does nothing."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def width(self) -> int | None:
        """d of its embeddings; None before the first enrolment."""
        return self.store.settings().get("width")

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the model of the embeddings; None before the first enrolment."""
        return self.store.settings().get("fingerprint")

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
            raise InputError(
                "`calibration` must be a keras_reid.evaluation.MatchCalibration, got "
                f"{calibration!r}. Fit one with fit_calibration(…)."
            )
        values = None if calibration is None else calibration.to_dict()
        self.store.save_settings({**self.store.settings(), "calibration": values})

    def calibrate(self) -> SelfCalibration | None:
        """Adapt the calibration to the images of the gallery, leaving one image out at a time.

        Of large galleries 200 persons with 8 images of each are used.

        Returns:
            The searches that it was adapted on; None if the gallery has too few images. At least 5
            persons with 2 images are required.

        Raises:
            InputError: the gallery has no calibration of its model.
        """
        before = self.calibration
        if before is None:
            raise InputError(NOT_CALIBRATED)
        names = self.identities()
        self.store.save_settings({**self.store.settings(), PERSONS: len(names)})
        several = sorted(name for name, images in names.items() if images >= LEAST_IMAGES)
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
        """Adds rows and returns how many; all of them are durable then.

        Args:
            embeddings: (n, d) finite numbers.
            identities: (n,) texts or integers, not empty; no text has control characters.
            cameras: (n,) texts or integers, "" or None where unknown; None: all unknown.
            times: (n,) seconds, None or NaN where unknown; None: all unknown.
            images: (n,) references to the images, such as their paths, each one once; None makes
                `IDENTITY#1`, `IDENTITY#2`, … after those that are there.
            model_fingerprint: of the model that made them, `fingerprint` in its `export.json`; the
                first enrolment settles it for the gallery.
            existing: "refuse", "skip" or "replace", for images that the gallery holds.
            attributes: (n, m) probabilities, for `describe`; None: unknown.
            attribute_names: (m,); the first enrolment with attributes settles them.
            digests: (n,) digests of the image files, "" where unknown, such as
                `keras_reid.io.content_digest` returns them, for `changes`; None: all unknown.

        Raises:
            InputError: columns that do not fit, another width or model than the gallery's, or an
                image that occurs twice or is there already. Nothing is added then.
        """
        if not model_fingerprint or not isinstance(model_fingerprint, str):
            raise InputError(
                "a gallery holds embeddings of one model: give its fingerprint, as in export.json; "
                f"received {model_fingerprint!r}"
            )
        checks.one_of(("refuse", "skip", "replace"), existing=existing)
        x = self._checked(embeddings, model_fingerprint)
        rows = self._rows(x, identities, cameras, times, images, digests)
        rows = replace(rows, attributes=self._attributes(len(x), attributes, attribute_names))
        held = {} if images is None else self._held(rows.image)
        if held and existing == "refuse":
            raise InputError(
                f"an image is enrolled once: {len(held)} of {len(rows)} are in the gallery, "
                f"such as {min(held)!r}; leave them out, or pass existing='skip'"
            )
        if held and existing == "skip":
            rows = rows[[i for i, image in enumerate(rows.image) if image not in held]]
        if not len(rows):
            return 0
        model: dict[str, Any] = {"width": x.shape[1], "fingerprint": model_fingerprint}
        if attribute_names is not None:
            model["attribute_names"] = [normalized(name) for name in attribute_names]
        self._before_writing(model)
        if held and existing == "replace":
            self.store.replace([row.image for row in held.values()], rows)
        else:
            self.store.add(rows)
        return len(rows)

    def _before_writing(self, model: dict[str, Any]) -> None:
        """Save new settings, and forget the number of persons."""
        before = self.store.settings()
        settings = {**model, **before}
        settings.pop(PERSONS, None)
        if settings != before:
            self.store.save_settings(settings)

    def _held(self, images: list[str]) -> dict[str, Labels]:
        """Return the rows of those images that the gallery holds."""
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
            images, identities, cameras, times, digests: (n,), as in `enrol`. Cameras and times that
                are unknown are not compared.

        Raises:
            InputError: columns that do not fit.
        """
        rows = self._rows(np.zeros((len(images), 1)), identities, cameras, times, images, digests)
        held = self._held(rows.image)
        new, replaced, moved = np.zeros((3, len(rows)), bool)
        for i, (image, digest) in enumerate(zip(rows.image, rows.digest, strict=True)):
            row = held.get(image)
            if row is None:
                new[i] = True
            else:
                replaced[i] = not digest or digest != row.digest
                moved[i] = _relabeled(rows, i, row) != row
        return Changes(new, replaced, moved)

    def relabel(
        self,
        images: Sequence[str],
        identities: Sequence[Any],
        cameras: Sequence[Any] | None = None,
        times: Sequence[float | None] | None = None,
    ) -> int:
        """Give rows other identities, cameras and times, and return how many rows there are.

        Args:
            images: (n,) references. Images without a row are left out.
            identities, cameras, times: (n,), as in `enrol`. A camera or time that is unknown
                leaves that of the row.

        Raises:
            InputError: columns that do not fit.
        """
        rows = self._rows(np.zeros((len(images), 1)), identities, cameras, times, images)
        held = self._held(rows.image)
        labels = [
            _relabeled(rows, i, held[image]) for i, image in enumerate(rows.image) if image in held
        ]
        if labels:
            columns = (list(column) for column in zip(*labels, strict=True))
            image, identity, camera, time, attributes, digest = columns
            x, seconds = self.store.embeddings(image), np.array(time, np.float64)
            self._before_writing({})
            self.store.replace(image, Rows(x, identity, camera, seconds, image, attributes, digest))
        return len(labels)

    @property
    def attribute_names(self) -> list[str] | None:
        """Of the attributes that `describe` knows; None before any were enrolled."""
        names = self.store.settings().get("attribute_names")
        return None if names is None else [normalized(name) for name in names]

    def _attributes(self, count: int, values: Any, names: Sequence[str] | None) -> list[str]:
        """The probabilities of each row as the store keeps them."""
        if values is None and names is None:
            return [""] * count
        shares = np.asarray([] if values is None else values, np.float64)
        names = [normalized(name) for name in ([] if names is None else names)]
        if shares.shape != (count, len(names)) or not ((shares >= 0) & (shares <= 1)).all():
            raise InputError(
                f"attributes are probabilities (n, m) with m names, n={count}: received "
                f"{shares.shape} and {len(names)} names"
            )
        known = self.attribute_names or names
        if names != known:
            raise InputError(
                f"a gallery has one set of attributes: this one has {', '.join(known)}; received "
                f"{', '.join(names)}; use its model, or a new gallery"
            )
        return [",".join(f"{p:.4g}" for p in row) for row in shares.tolist()]

    def describe(
        self, wanted: Mapping[str, bool], k: int = 10, filter: Filter = NO_FILTER
    ) -> list[SearchResult]:
        """The k rows that fit a description best, such as `{"upred": True, "hat": False}`.

        A hit's `distance` is `−mean log p` over what is wanted, p the probability of it being so
        (of it not being so where False), at least 1e-6: 0 is a sure fit.

        Raises:
            InputError: k below 1, nothing wanted, or attributes that the gallery does not know.
        """
        known = self.attribute_names or []
        wanted = {normalized(name): value for name, value in wanted.items()}
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            raise InputError(
                f"a description names attributes of the gallery, {', '.join(known) or 'none'}: "
                f"received {', '.join(map(str, unknown)) or 'nothing'}; those of a gallery are "
                "predicted by a model of the recipe attributes"
            )
        checks.at_least(1, k=k)
        columns = [known.index(name) for name in wanted]
        yes = np.array([bool(value) for value in wanted.values()])
        found = []
        for hit, text in self.store.described(filter):
            p = np.array(text.split(","), np.float64)[columns]
            cost = -np.log(np.maximum(np.where(yes, p, 1 - p), 1e-6)).mean()
            found.append(hit._replace(distance=float(cost) + 0.0))
        return heapq.nsmallest(k, found, key=lambda hit: (hit.distance, hit.image))

    def _rows(
        self,
        x: np.ndarray,
        identities: Sequence[Any],
        cameras: Sequence[Any] | None,
        times: Sequence[float | None] | None,
        images: Sequence[str] | None,
        digests: Sequence[str] | None = None,
    ) -> Rows:
        count = len(x)
        identity = _names(identities, count, "identities")
        if "" in identity:
            raise InputError(f"every row has an identity: row {identity.index('')} has none")
        camera = [""] * count if cameras is None else _names(cameras, count, "cameras")
        image = self._numbered(identity) if images is None else _references(images, count)
        given = [None] * count if times is None else times
        try:
            values = [np.nan if t is None else float(t) for t in given]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"times are seconds, or None where unknown: {error}; convert them first"
            ) from error
        if len(values) != count or np.isinf(values).any():
            raise InputError(
                f"times are one finite number or None for each of {count} rows: received "
                f"{len(values)}, {int(np.isinf(values).sum())} of them infinite"
            )
        unknown = [""] * count
        digest = unknown if digests is None else _texts(digests, count, "digests")
        return Rows(x, identity, camera, np.array(values, np.float64), image, unknown, digest)

    def _numbered(self, identity: list[str]) -> list[str]:
        taken = self.store.identities() if self.store.count() else {}
        held: set[str] = set()
        names = []
        for name in identity:
            number = taken.get(name, 0) + 1
            while (reference := f"{name}#{number}") in held or self.store.held([reference]):
                number += 1
            taken[name] = number
            held.add(reference)
            names.append(reference)
        return names

    def search(
        self,
        embeddings: Any,
        k: int = 10,
        filter: Filter = NO_FILTER,
        *,
        query_cameras: Sequence[Any] | None = None,
        model_fingerprint: str | None = None,
        rerank: str = "none",
        shortlist: int = 1000,
        rerank_options: dict[str, Any] | None = None,
    ) -> list[list[SearchResult]]:
        """The k nearest rows of each query, nearest first; fewer where a filter leaves fewer.

        Args:
            embeddings: (q, d) finite numbers.
            k: at most the number of rows.
            filter: the rows to look at.
            query_cameras: (q,) cameras of the queries: rows of the same camera are not looked at;
                "" or None looks at all.
            model_fingerprint: refused if it is not the gallery's.
            rerank: "none", or a name of `keras_reid.reranking.RERANKERS`: each query on its own,
                among its `shortlist` nearest rows; hits keep their distances, and have `reranked`.
            shortlist: rows that are fetched to re-rank, at least k; more than there are means all.
            rerank_options: of the re-ranker, such as `{"k1": 20}`.

        Raises:
            InputError: an empty gallery, k larger than it, other embeddings than it holds, or
                unknown options.
        """
        x = self._checked(embeddings, model_fingerprint)
        count = self.store.count()
        if not count:
            raise InputError("an empty gallery finds nobody: enrol images first")
        if not isinstance(k, int | np.integer) or not 1 <= k <= count:
            raise InputError(
                f"k is from 1 to the size of the gallery, {count:,}: received {k}; ask for fewer"
            )
        if rerank == "none":
            if rerank_options:
                raise InputError(f"rerank_options need a re-ranker: received {rerank_options}")
            return self._found(x, int(k), filter, query_cameras)
        if shortlist < k:
            raise InputError(
                f"a shortlist holds at least the k={k} hits: received shortlist={shortlist}"
            )
        found = self._found(x, min(int(shortlist), count), filter, query_cameras)
        return [
            self._reranked(query, hits, rerank, rerank_options or {})[:k]
            for query, hits in zip(x, found, strict=True)
        ]

    def _found(
        self, x: np.ndarray, k: int, filter: Filter, query_cameras: Sequence[Any] | None
    ) -> list[list[SearchResult]]:
        if query_cameras is None:
            return self.store.search(x, k, filter)
        cameras = np.array(_names(query_cameras, len(x), "query cameras"), object)
        found: list[list[SearchResult]] = [[] for _ in x]
        for camera in sorted(set(cameras)):
            chosen = np.flatnonzero(cameras == camera)
            hits = self.store.search(x[chosen], k, filter.without(camera))
            for i, row in zip(chosen, hits, strict=True):
                found[i] = row
        return found

    def _reranked(
        self, query: np.ndarray, hits: list[SearchResult], name: str, options: dict[str, Any]
    ) -> list[SearchResult]:
        if not hits:
            return hits
        vectors = self.store.embeddings([hit.image for hit in hits])
        distances = compare(query[None], vectors, reranking=name, **options).rows(0, 1)[0]
        order = np.argsort(distances, kind="stable")
        return [hits[i]._replace(reranked=float(distances[i])) for i in order]

    def identify(
        self,
        embeddings: Any,
        k: int = 1,
        filter: Filter = NO_FILTER,
        *,
        query_cameras: Sequence[Any] | None = None,
        model_fingerprint: str | None = None,
        rerank: str = "none",
        shortlist: int = 1000,
        rerank_options: dict[str, Any] | None = None,
        limits: Limits = LIMITS,
    ) -> list[Identification]:
        """Search for each query, and decide whether the nearest person is the person of the query.

        Args:
            embeddings, filter, query_cameras, model_fingerprint: as in `search`.
            rerank, shortlist, rerank_options: as in `search`.
            k: hits of each query, at most the number of rows.
            limits: probabilities of a match and of a possible match.

        Raises:
            InputError: as `search`, or the gallery has no calibration.
        """
        calibration = self.calibration
        if calibration is None:
            raise InputError(NOT_CALIBRATED)
        x = self._checked(embeddings, model_fingerprint)
        persons, count = self.persons(), self.count()
        cameras = [""] * len(x) if query_cameras is None else query_cameras
        found: list[list[SearchResult]] = [[] for _ in x]
        waiting, depth = list(range(len(x))), max(k, SECOND)
        # Decisions compare two persons, so queries with hits of one person are searched deeper.
        while waiting:
            rows = self.search(
                x[waiting],
                min(depth, max(1, count)),
                filter,
                query_cameras=[cameras[i] for i in waiting],
                rerank=rerank,
                shortlist=max(depth, shortlist),
                rerank_options=rerank_options,
            )
            for i, hits in zip(waiting, rows, strict=True):
                found[i] = hits
            full = depth >= min(count, DEEPEST)
            waiting = [i for i in waiting if not full and len({h.identity for h in found[i]}) == 1]
            depth = min(8 * depth, DEEPEST)
        images = count / max(1, persons)
        return [
            Identification(decide(hits, calibration, persons, images, limits), hits[:k])
            for hits in found
        ]

    def persons(self) -> int:
        """Return the number of identities."""
        persons = self.store.settings().get(PERSONS)
        return len(self.identities()) if persons is None else persons

    def remove(self, identity: Any) -> int:
        """Erase all rows of an identity, a text or integer, and return how many there were.

        Raises:
            InputError: another value.
        """
        name = normalized(label(identity, "identity"))
        if _unprintable(name):
            return 0
        self._before_writing({})
        return self.store.remove(name)

    def count(self) -> int:
        """Number of rows."""
        return self.store.count()

    def contains(self, images: Sequence[str]) -> set[str]:
        """Return the image references that are enrolled."""
        texts = [str(image) for image in images]
        return {*self._held([text for text in texts if not _unprintable(text)])}

    def identities(self) -> dict[str, int]:
        """Number of rows of each identity, by name."""
        return self.store.identities()

    def stats(self) -> dict[str, Any]:
        """Facts about the gallery as plain values."""
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
        known, width = self.fingerprint, self.width
        if None not in (known, fingerprint) and fingerprint != known:
            raise InputError(
                "distances between embeddings of two models mean nothing: this gallery is of the "
                f"model {known}, received {fingerprint}; use that model, or a new gallery"
            )
        if width not in (None, x.shape[1]):
            raise InputError(
                f"embeddings in this gallery have {width} numbers: received {x.shape[1]}; embed "
                "with the model that it was made with"
            )
        return x


def _texts(values: Sequence[Any], count: int, what: str) -> list[str]:
    if not isinstance(values, list | tuple):
        values = np.asarray(values, object).tolist()
    if not isinstance(values, list | tuple):
        raise InputError(f"`{what}` must have one value for each row, got {values!r}. Pass a list.")
    if what == "images":
        values = [str(path) if isinstance(path, os.PathLike) else path for path in values]
    texts = ["" if value is None else label(value, what) for value in values]
    if len(texts) != count:
        raise InputError(f"{what} are one for each of {count} rows: received {len(texts)}")
    longest = max(texts, key=len, default="")
    if len(longest) > LONGEST_TEXT:
        raise InputError(
            f"{what} have at most {LONGEST_TEXT} characters: received one of {len(longest)}"
        )
    wrong = next((text for text in texts if _unprintable(text)), None)
    if wrong is not None:
        raise InputError(
            f"{what} are text without control characters, in UTF-8: received {wrong!r}; rename it"
        )
    return texts


def _names(values: Sequence[Any], count: int, what: str) -> list[str]:
    return [normalized(text) for text in _texts(values, count, what)]


def _references(values: Sequence[str], count: int) -> list[str]:
    images = _texts(values, count, "images")
    image = "" if "" in images else repeated(images)
    if image is not None:
        raise InputError(
            f"an image is enrolled once and has a name: {image!r} is empty or occurs twice"
        )
    return images


def _relabeled(rows: Rows, i: int, row: Labels) -> Labels:
    """Return the labels of a held row with the identity, and the known labels, of row i."""
    time = row.time if np.isnan(rows.time[i]) else float(rows.time[i])
    return row._replace(identity=rows.identity[i], camera=rows.camera[i] or row.camera, time=time)


def _unprintable(text: str) -> bool:
    return printable(text) != text or "\n" in text or "\t" in text
