"""Results of the search page as HTML, without Gradio."""

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import data, distances, gallery, inference, models, visualize
from keras_reid.errors import InputError, counted
from keras_reid.pixels import decode, resize

HEIGHT = 160  # of pictures, in pixels
RERANKED = 1000  # rows that are fetched to re-rank


class Query(NamedTuple):
    """Who is looked for: pixels uint8 (h, w, 3) and embedding (d,); of a description neither."""

    name: str
    pixels: np.ndarray | None
    embedding: np.ndarray | None
    described: dict[str, bool]


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
        self.uri, self.embedder, self.limits, self.images = uri, embedder, limits, images
        self._embed = embed or embedder.embed
        self.people = gallery.open(uri)
        self.lock = threading.Lock()  # requests come in threads, and the gallery is for one
        known = self.people.fingerprint
        if known not in (None, embedder.fingerprint):
            self.people.close()
            raise InputError(
                f"a gallery is searched with the model that filled it: {uri} is of {known}, this "
                f"one is {embedder.fingerprint}; name that with --model"
            )
        if self.people.calibration is None:
            self.people.calibration = embedder.calibration
        self.calibrated = self.people.calibration is not None

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *error: object) -> None:
        self.people.close()

    @property
    def attributes(self) -> list[str]:
        """Of which a person can be described; empty where the model knows none."""
        return list(self.embedder.source.settings.get("attribute_names") or ())

    @property
    def choices(self) -> list[str]:
        """Images that can be chosen."""
        return data.unlabeled(self.images).path.tolist() if self.images else []

    def known(self) -> str:
        """In a sentence, what the gallery holds."""
        with self.lock:
            rows, identities = self.people.count(), len(self.people.identities())
        return f"{counted(rows, 'image')} of {counted(identities, 'person')} in {self.uri}"

    def of_image(self, file: str) -> Query:
        """The query of an image file.

        Raises:
            InputError: no image, or none that an embedder takes.
        """
        name = Path(file).name
        images = data.query_images([file], [name])
        with self.lock:
            embedding = self._embed(images)[0]
        return Query(name, decode(file), embedding, {})

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
        match_probability: float | None = None,
        possible_probability: float | None = None,
        rerank: bool = False,
    ) -> tuple[str, list[str]]:
        """The answer as HTML, and the retrieved images.

        Args:
            query: an image or a description.
            k: number of images.
            cameras, not_cameras, after, before: as in `keras_reid.gallery.Filter`, as text.
            match_probability, possible_probability: None: the default limits.
            rerank: re-rank the nearest images.

        Raises:
            InputError: filters that cannot be read, or an empty gallery.
        """
        where = gallery.Filter(
            _words(cameras), _words(not_cameras), gallery.seconds(after), gallery.seconds(before)
        )
        limits = gallery.Limits(
            self.limits.match if match_probability is None else match_probability,
            self.limits.possible if possible_probability is None else possible_probability,
        )
        with self.lock:
            count = self.people.count()
            k = min(k, max(1, count))
            if query.embedding is None:
                hits, verdict = self.people.describe(query.described, k, where), None
                text = f"best fits of {query.name}"
            else:
                search: dict[str, Any] = {
                    "top_k": k,
                    "filter": where,
                    "model_fingerprint": self.embedder.fingerprint,
                    "reranking": "k_reciprocal" if rerank else "none",
                    "shortlist": max(k, RERANKED),
                }
                hits, verdict, text = self._decided(query.embedding, search, limits)
        shown = {
            "image": query.pixels,
            "described": bool(query.described),
            "hits": [hit._asdict() for hit in hits],
            "verdict": verdict,
            "answer": text,
        }
        return visualize.search_answer(shown, HEIGHT), [str(hit.image) for hit in hits]

    def _decided(
        self, embedding: np.ndarray, search: dict[str, Any], limits: gallery.Limits
    ) -> tuple[list[gallery.SearchResult], str | None, str]:
        """Hits, verdict and answer of a query; no verdict without a calibration."""
        if not self.calibrated:
            (hits,) = self.people.search(embedding[None], **search)
            return hits, None, f"nearest: {hits[0].identity} (not calibrated)" if hits else ""
        (found,) = self.people.identify(embedding[None], limits=limits, **search)
        return found.hits, found.decision.verdict, str(found)

    def why(self, query: Query, image: str) -> str:
        """Pictures as HTML: where the images are alike, and which of their stripes are.

        Raises:
            InputError: a description, an export, a model without a map, or a file that is gone.
        """
        if query.pixels is None:
            raise InputError("a description has no image to compare with: search for an image")
        if not self.embedder.source.is_keras or self.embedder.inputs != {"images"}:
            raise InputError(
                "images are compared by the feature map of a model of images alone: received an "
                "export, or a model with body points; name another with --model"
            )
        pixels = decode(image)
        size = self.embedder.image_size
        images = np.stack([resize(one, size) for one in (query.pixels, pixels)])
        maps, stripes = self._views
        with self.lock:
            first, second = np.asarray(maps(images))
            local = np.asarray(stripes(images)["local"])
        costs = np.tanh(np.linalg.norm(local[0][:, None] - local[1][None], axis=-1) / 2)
        path = distances.aligned(local[:1], local[1:], return_path=True)[1]
        heat = visualize.draw_heat(query.pixels, visualize.activation(first), 2 * HEIGHT)
        other = visualize.draw_heat(pixels, visualize.activation(second, first), 2 * HEIGHT)
        lines = visualize.draw_alignment(
            query.pixels, pixels, np.asarray(path)[0, 0], costs, 2 * HEIGHT
        )
        pictures = {
            "the query": heat,
            "red: like the query": other,
            "stripes that were compared": lines,
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
        assert isinstance(self.embedder, inference.KerasEmbedder)
        model = self.embedder.model
        return models.feature_maps(model), models.stripes(model)


def _words(text: str) -> list[str] | None:
    return [word.strip() for word in text.split(",") if word.strip()] or None
