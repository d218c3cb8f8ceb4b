"""What the search page answers, as HTML; it knows nothing of Gradio."""

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import data, distances, gallery, models, visualize
from keras_reid.cli.search import answer, check_exists, query_images, seconds
from keras_reid.data.pillow import opened
from keras_reid.data.pipeline import fitted
from keras_reid.demo.command import DemoOptions
from keras_reid.errors import InputError, counted

HEIGHT = 160  # of pictures, in pixels
RERANKED = 1000  # rows that are fetched to re-rank


class Query(NamedTuple):
    """Who is looked for: pixels uint8 (h, w, 3) and embedding (d,); of a description neither."""

    name: str
    pixels: np.ndarray | None
    embedding: np.ndarray | None
    described: dict[str, bool]


class Answers:
    """Searches of one gallery by one model.

    Args:
        options: which.

    Raises:
        InputError: no such gallery, or one of another model.
    """

    def __init__(self, options: DemoOptions) -> None:
        assert options.gallery is not None
        check_exists(options.gallery)
        self.options = options
        self.people = gallery.open(options.gallery)
        self.lock = threading.Lock()  # requests come in threads, and the gallery is for one
        known = self.people.fingerprint
        if known not in (None, options.fingerprint):
            self.people.close()
            raise InputError(
                f"a gallery is searched with the model that filled it: {options.gallery} is of "
                f"{known}, this one is {options.fingerprint}; name that with --model"
            )
        kept = self.people.threshold or options.shipped_threshold(tell=False)
        self.threshold = None if kept is None else float(kept)

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *error: object) -> None:
        self.people.close()

    @property
    def attributes(self) -> list[str]:
        """Of which a person can be described; empty where the model knows none."""
        return list(self.options.settings.get("attribute_names") or ())

    @property
    def choices(self) -> list[str]:
        """Images that can be chosen."""
        folder = self.options.images
        return data.unlabelled(folder).path.tolist() if folder else []

    def known(self) -> str:
        """In a sentence, what the gallery holds."""
        with self.lock:
            rows, identities = self.people.count(), len(self.people.identities())
        return (
            f"{counted(rows, 'image')} of {counted(identities, 'person')} in {self.options.gallery}"
        )

    def of_image(self, file: str) -> Query:
        """The query of an image file.

        Raises:
            InputError: no image, or none that an embedder takes.
        """
        name = Path(file).name
        images = query_images([file], [name])
        with self.lock:
            embedding = self._embed(images)[0]
        return Query(name, np.asarray(opened(file)), embedding, {})

    @cached_property
    def _embed(self) -> Any:
        return self.options.embedder()

    @staticmethod
    def of_description(words: Sequence[str]) -> Query:
        """The query of attributes: `NAME` or `not NAME`."""
        wanted = {word.removeprefix("not "): not word.startswith("not ") for word in words}
        return Query(", ".join(words), None, None, wanted)

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        cameras: str = "",
        not_cameras: str = "",
        after: str = "",
        before: str = "",
        threshold: float | None = None,
        rerank: bool = False,
    ) -> tuple[str, list[str]]:
        """The answer as HTML, and the images that were found.

        Raises:
            InputError: filters that cannot be read, or an empty gallery.
        """
        where = gallery.Filter(
            _words(cameras), _words(not_cameras), seconds(after), seconds(before)
        )
        with self.lock:
            count = self.people.count()
            k = min(k, max(1, count))
            if query.embedding is None:
                hits, threshold = self.people.describe(query.described, k, where), None
            else:
                (hits,) = self.people.search(
                    query.embedding[None],
                    k,
                    where,
                    model_fingerprint=self.options.fingerprint,
                    rerank="k_reciprocal" if rerank else "none",
                    shortlist=max(k, RERANKED),
                )
        found = [hit._asdict() for hit in hits]
        shown = {
            "image": query.pixels,
            "described": bool(query.described),
            "hits": found,
            "answer": answer(found, threshold, query.name if query.described else ""),
        }
        html = visualize.search_answer(shown, threshold, HEIGHT)
        return html, [str(hit.image) for hit in hits]

    def why(self, query: Query, image: str) -> str:
        """Pictures as HTML: where the images are alike, and which of their stripes are.

        Raises:
            InputError: a description, an export, a model without a map, or a file that is gone.
        """
        if query.pixels is None:
            raise InputError("a description has no image to compare with: search for an image")
        if not self.options.source.is_keras or self.options.loaded.inputs != {"images"}:
            raise InputError(
                "images are compared by the feature map of a model of images alone: received an "
                "export, or a model with body points; name another with --model"
            )
        pixels = np.asarray(opened(image))
        size = self.options.loaded.image_size
        images = np.stack([fitted(one, size) for one in (query.pixels, pixels)])
        with self.lock:
            first, second = np.asarray(self._feature_maps(images))
            local = np.asarray(self._stripes(images)["local"])
        heats = visualize.activation(first), visualize.activation(second, first)
        costs = np.tanh(np.linalg.norm(local[0][:, None] - local[1][None], axis=-1) / 2)
        path = distances.aligned(local[:1], local[1:], return_path=True)[1]
        pictures = [
            *(
                visualize.draw_heat(one, heat, 2 * HEIGHT)
                for one, heat in zip((query.pixels, pixels), heats, strict=True)
            ),
            visualize.draw_alignment(
                query.pixels, pixels, np.asarray(path)[0, 0], costs, 2 * HEIGHT
            ),
        ]
        texts = ("the query", "red: like the query", "stripes that were compared")
        return "".join(
            f'<figure style="display:inline-block;margin:0 16px 0 0">'
            f'<img alt="{text}" src="data:image/jpeg;base64,{visualize.jpeg(one)}">'
            f"<figcaption>{text}</figcaption></figure>"
            for one, text in zip(pictures, texts, strict=True)
        )

    @cached_property
    def _feature_maps(self) -> Any:
        return models.feature_maps(self.options.keras_model)

    @cached_property
    def _stripes(self) -> Any:
        return models.stripes(self.options.keras_model)


def _words(text: str) -> list[str] | None:
    return [word.strip() for word in text.split(",") if word.strip()] or None
