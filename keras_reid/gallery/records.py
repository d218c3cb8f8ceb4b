"""Rows and settings of a gallery: enrol, change and remove persons."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.evaluation import MatchCalibration
from keras_reid.gallery.rows import Changes, Row, Store, checked_rows, key, label, unprintable
from keras_reid.names import normalized, one_image
from keras_reid.nearest.arrays import checked_features

PERSONS = "persons"  # setting: their number, which Milvus counts slowly; removed by each write
LOOKUP = 1000  # images that are looked up at a time


class Records:
    """Rows and settings of a gallery: base of `Gallery`, which adds the searches.

    Args:
        store: back end.
    """

    def __init__(self, store: Store) -> None:
        self._store: Store | None = store
        settings = store.settings()
        if settings.pop("threshold", None) is not None:  # a gallery of version 0.2.0
            store.save_settings(settings)
            logging.warning(
                "This gallery has the distance threshold of an earlier version, which is no longer "
                "used. To adapt decisions to its images, run keras-reid search calibrate."
            )

    @property
    def store(self) -> Store:
        """Back end of an open gallery."""
        if self._store is None:
            raise InputError("This gallery is closed. Open it again.")
        return self._store

    def __enter__(self) -> Self:
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
        """Calibration of decisions; assign that of the model, see `keras_reid.evaluation`."""
        values = self.store.settings().get("calibration")
        return None if values is None else MatchCalibration.of(values, "the gallery")

    @calibration.setter
    def calibration(self, calibration: MatchCalibration | None) -> None:
        values = None if calibration is None else calibration.to_dict()
        self.store.save_settings({**self.store.settings(), "calibration": values})

    # More arguments than elsewhere: each optional column is one.
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
            model_fingerprint: fingerprint of the model, `fingerprint` in its `export.json`;
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
        rows = checked_rows(len(x), identities, cameras, times, images, digests)
        texts = self._attributes(len(x), attributes, attribute_names)
        rows = [row._replace(attributes=text) for row, text in zip(rows, texts, strict=True)]
        if images is None:
            rows = self._numbered(rows)
        held = {} if images is None else self.held([row.image for row in rows])
        if held and existing == "refuse":
            received = Shown(f"{len(held)} of {len(rows)} in the gallery, such as {min(held)!r}")
            raise invalid("images", "new", received, "Omit them, or pass existing='skip'.")
        if existing == "skip":
            new = [i for i, row in enumerate(rows) if row.image not in held]
            x, rows, held = x[new], [rows[i] for i in new], {}
        if rows:
            model: dict[str, Any] = {"width": x.shape[1], "fingerprint": model_fingerprint}
            if attribute_names is not None:
                model["attribute_names"] = [normalized(name) for name in attribute_names]
            self._write([row.image for row in held.values()], x, rows, model)
        return len(rows)

    def _write(
        self, images: Sequence[str], x: np.ndarray, rows: Sequence[Row], model: dict[str, Any]
    ) -> None:
        """Save new settings without the number of persons, and replace rows."""
        before = self.store.settings()
        settings = {**model, **before}
        settings.pop(PERSONS, None)
        if settings != before:
            self.store.save_settings(settings)
        self.store.write(images, x, rows)

    def _numbered(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows with new image references."""
        last = Counter(self.store.identities())

        def new(identity: str) -> str:
            last[identity] += 1
            return f"{identity}#{last[identity]}"

        rows = [row._replace(image=new(row.identity)) for row in rows]
        while held := self.held([row.image for row in rows]):
            rows = [r._replace(image=new(r.identity)) if r.image in held else r for r in rows]
        return rows

    def held(self, images: Sequence[str]) -> dict[str, Row]:
        """Return a dict from the passed references to their rows, without unknown references.

        A row can have another Unicode form of the reference, unless both are paths of existing
        files.
        """
        rows: dict[str, Row] = {}
        for start in range(0, len(images), LOOKUP):
            keys = [key(normalized(image)) for image in images[start : start + LOOKUP]]
            rows |= {row.image: row for row in self.store.rows([("spelled", "in", keys)])}
        spellings = {normalized(image): row for image, row in rows.items()}
        pairs = [(i, rows.get(i) or spellings.get(normalized(i))) for i in images]
        return {i: row for i, row in pairs if row and (i in rows or one_image(row.image, i))}

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
            images: (n,) references.
            identities: (n,), as in `enrol`.
            cameras: (n,), as in `enrol`; unknown ones are not compared.
            times: (n,) seconds; unknown ones are not compared.
            digests: (n,) digests of the image files, "" where unknown.

        Raises:
            InputError: columns that do not fit.
        """
        rows = checked_rows(len(images), identities, cameras, times, images, digests)
        held = self.held([row.image for row in rows])
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
            identities: (n,), as in `enrol`.
            cameras: (n,), as in `enrol`; an unknown one leaves that of the row.
            times: (n,) seconds; an unknown one leaves that of the row.

        Raises:
            InputError: columns that do not fit.
        """
        rows = checked_rows(len(images), identities, cameras, times, images)
        held = self.held([row.image for row in rows])
        moved = [held[row.image].relabeled(row) for row in rows if row.image in held]
        if moved:
            references = [row.image for row in moved]
            self._write(references, self.store.embeddings(references), moved, {})
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

    def remove(self, identity: Any) -> int:
        """Erase all rows of an identity, a text or integer, and return their number.

        Raises:
            InputError: the identity is neither a text nor an integer.
        """
        name = normalized(label(identity, "identity"))
        if unprintable(name):
            return 0
        images = [row.image for row in self.store.rows([("identity", "in", [name])])]
        if images:
            self._write(images, np.zeros((0, self.width or 0), np.float32), [], {})
            self.store.purge()
        return len(images)

    def persons(self) -> int:
        """Return the number of identities."""
        persons = self.store.settings().get(PERSONS)
        return len(self.identities()) if persons is None else persons

    def count(self) -> int:
        """Return the number of rows."""
        return self.store.count()

    def contains(self, images: Sequence[str]) -> set[str]:
        """Return the set of the given image references that are enrolled."""
        return {*self.held([str(image) for image in images])}

    def identities(self) -> dict[str, int]:
        """Return the number of rows of each identity, by name."""
        return self.store.identities()

    def check_model(self, fingerprint: str | None) -> None:
        """Raise `InputError` for the fingerprint of another model; None is not checked."""
        own = self.fingerprint
        if None not in (own, fingerprint) and fingerprint != own:
            fix = "Use the model of the gallery."
            raise invalid("model", f"{own!r}, the model of the gallery", fingerprint, fix)

    def _checked(self, embeddings: Any, fingerprint: str | None) -> np.ndarray:
        """Return the embeddings; raise unless they are of the model of the gallery."""
        x = checked_features(embeddings, 2, "embedding")
        self.check_model(fingerprint)
        fix = "Use the model of the gallery."
        checks.shapes(fix, embeddings=(f"(n, {self.width or 'd'})", x.shape))
        return x
