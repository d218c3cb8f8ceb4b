"""Results of the search page as HTML, without Gradio."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import data, distances, gallery, inference, models, visualize
from keras_reid.errors import InputError, counted
from keras_reid.gallery.rows import NO_FILTER
from keras_reid.pixels import decode, resize

HEIGHT = 160  # height of pictures in pixels
SHORTLIST = 1000  # rows that are retrieved for re-ranking


class Query(NamedTuple):
    """Person to search for: pixels uint8 (h, w, 3) and embedding (d,), or a description."""

    name: str
    pixels: np.ndarray | None
    embedding: np.ndarray | None
    attributes: dict[str, bool]


class Answers:
    """Searches of one gallery with one model.

    Args:
        uri: address of the gallery.
        embedder: model of the gallery.
        embed: function from images to embeddings; None: `embedder.embed`.
        limits: default probabilities of a match and of a possible match.
        images: folder of images to choose from.

    Raises:
        InputError: the gallery does not exist, or has embeddings of another model.
    """

    def __init__(
        self,
        uri: str,
        embedder: inference.Embedder,
        embed: Callable[[data.PersonImages], Any] | None = None,
        limits: gallery.Limits = gallery.LIMITS,
        images: str | None = None,
    ) -> None:
        gallery.check_exists(uri)
        self.uri, self.embedder, self.limits = uri, embedder, limits
        self.choices = data.unlabeled(images).path.tolist() if images else []
        self._embed = embed or embedder.embed
        self.lock = threading.Lock()  # requests come in threads, and the gallery is for one
        with ExitStack() as stack:
            self.people = stack.enter_context(gallery.open(uri))
            self.people.check_model(embedder.fingerprint)
            stack.pop_all()  # leave the gallery open
        if self.people.calibration is None:
            self.people.calibration = embedder.calibration

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *error: object) -> None:
        self.people.close()

    @property
    def attributes(self) -> list[str]:
        """Names of attributes that describe a person; empty if the model has none."""
        return list(self.embedder.source.settings.get("attribute_names") or ())

    def contents(self) -> str:
        """Return the numbers of images and persons of the gallery as text."""
        with self.lock:
            rows, identities = self.people.count(), len(self.people.identities())
        return f"{counted(rows, 'image')} of {counted(identities, 'person')} in {self.uri}"

    def of_image(self, file: str) -> Query:
        """Return the query of an image file.

        Raises:
            InputError: the file is not an image, or the embedder does not accept it.
        """
        name = Path(file).name
        images = data.query_images([file], [name])
        with self.lock:
            embedding = self._embed(images)[0]
        return Query(name, decode(file), embedding, {})

    @staticmethod
    def of_description(words: Sequence[str]) -> Query:
        """Return the query of attributes: `NAME` or `not NAME`."""
        attributes = {word.removeprefix("not "): not word.startswith("not ") for word in words}
        return Query(", ".join(words), None, None, attributes)

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        filter: gallery.Filter = NO_FILTER,
        limits: gallery.Limits | None = None,
        rerank: bool = False,
    ) -> tuple[str, list[str]]:
        """Return the answer as HTML, and the retrieved images.

        Args:
            query: an image or a description.
            k: number of images.
            filter: cameras and times of the images.
            limits: probabilities of a match and of a possible match; None: the default ones.
            rerank: re-rank the nearest images.

        Raises:
            InputError: an empty gallery.
        """
        with self.lock:
            k = min(k, max(1, self.people.count()))
            if query.embedding is None:
                hits, verdict = self.people.describe(query.attributes, k, filter), None
                text = f"best fits of {query.name}"
            else:
                search: dict[str, Any] = {
                    "top_k": k,
                    "filter": filter,
                    "model_fingerprint": self.embedder.fingerprint,
                    "reranking": "k_reciprocal" if rerank else "none",
                    "shortlist": max(k, SHORTLIST),
                }
                hits, verdict, text = self._decide(query.embedding, search, limits or self.limits)
        answer = {
            "image": query.pixels,
            "described": bool(query.attributes),
            "hits": [hit._asdict() for hit in hits],
            "verdict": verdict,
            "answer": text,
        }
        return visualize.search_answer(answer, HEIGHT), [str(hit.image) for hit in hits]

    def _decide(
        self, embedding: np.ndarray, search: dict[str, Any], limits: gallery.Limits
    ) -> tuple[list[gallery.SearchResult], str | None, str]:
        """Return the hits, the verdict (None if there is no calibration) and the answer."""
        if self.people.calibration is None:
            (hits,) = self.people.search(embedding[None], **search)
            return hits, None, f"nearest: {hits[0].identity} (not calibrated)" if hits else ""
        (result,) = self.people.identify(embedding[None], limits=limits, **search)
        return result.hits, result.decision.verdict, str(result)

    def why(self, query: Query, image: str) -> str:
        """Return pictures as HTML: similar regions of two images, and their aligned stripes.

        Raises:
            InputError: a query by description, a model without feature maps, or a missing file.
        """
        if query.pixels is None:
            raise InputError("A description has no image for a comparison. Search for an image.")
        if not self.embedder.source.is_keras or self.embedder.inputs != {"images"}:
            raise InputError(
                "The comparison of two images needs a Keras model with images as its only input. "
                "Choose another --model."
            )
        pixels, height = decode(image), 2 * HEIGHT
        size = self.embedder.image_size
        images = np.stack([resize(one, size) for one in (query.pixels, pixels)])
        maps, stripes = self._views
        with self.lock:
            first, second = np.asarray(maps(images))
            local = np.asarray(stripes(images)["local"])
        costs = np.tanh(np.linalg.norm(local[0][:, None] - local[1][None], axis=-1) / 2)
        path = np.asarray(distances.aligned(local[:1], local[1:], return_path=True)[1])[0, 0]
        heat = visualize.activation(first), visualize.activation(second, first)
        pictures = {
            "query": visualize.draw_heat(query.pixels, heat[0], height),
            "red: similar to the query": visualize.draw_heat(pixels, heat[1], height),
            "aligned stripes": visualize.draw_alignment(query.pixels, pixels, path, costs, height),
        }
        return "".join(
            f'<figure style="display:inline-block;margin:0 16px 0 0">'
            f'<img alt="{text}" src="data:image/jpeg;base64,{visualize.jpeg(one)}">'
            f"<figcaption>{text}</figcaption></figure>"
            for text, one in pictures.items()
        )

    @cached_property
    def _views(self) -> tuple[Any, Any]:
        """Models of the feature maps and of the stripes."""
        embedder = self.embedder.keras()
        assert embedder is not None
        return models.feature_maps(embedder.model), models.stripes(embedder.model)


def filter_of(cameras: str, not_cameras: str, after: str, before: str) -> gallery.Filter:
    """Return the filter of the text fields of the page, see `keras_reid.gallery.Filter`.

    Args:
        cameras: names separated by commas; empty: all cameras.
        not_cameras: names of excluded cameras.
        after: earliest time of an image: seconds since 1970, or ISO 8601; empty: no limit.
        before: images are searched if they were taken before this time; in the form of `after`.

    Raises:
        InputError: an invalid time.
    """
    return gallery.Filter(
        _words(cameras), _words(not_cameras), gallery.seconds(after), gallery.seconds(before)
    )


def _words(text: str) -> list[str] | None:
    return [word.strip() for word in text.split(",") if word.strip()] or None
