"""SavedModel that ranks and re-ranks embeddings on a server."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.errors import invalid
from keras_reid.inference.metadata import FILE
from keras_reid.names import StrPath
from keras_reid.nearest.arrays import checked_features
from keras_reid.nearest.graph import nearest_rows
from keras_reid.reranking import IN_GRAPH
from keras_reid.serving.saved_model import write_requests
from keras_reid.serving.versions import new_version

NO_MATCH = -1  # index where no finite row is left


def export_ranker(
    directory: StrPath,
    embedding_dim: int,
    version: int | None = None,
    reranking: str = "k_reciprocal",
    gallery: Any = None,
    **options: Any,
) -> Path:
    """Write the SavedModel `directory/version/`, which ranks embeddings, and return its path.

    Signatures:

    - `rank` and `serving_default` take `query` `(q, d)`, `gallery` `(g, d)` and `k`. They return
      `indices` `(q, min(k, g))` int32 of the nearest gallery rows, nearest first, and their
      `distances` `|x − y|`. Equal distances are ordered by index.
    - `rerank` takes the same inputs and returns `indices` and `distances` of a re-ranker. It
      re-ranks all queries together with the gallery or with a shortlist of it.
    - `rank_known` and `rerank_known` take `query` and `k`; they exist with a stored gallery.

    Rows that are not finite are never returned, and do not change the results of other rows.
    Missing results have index -1 and infinite distance.

    Args:
        directory: folder of all versions of one model; it is created if missing.
        version: number from 1; None: the number after the last one.
        embedding_dim: d.
        reranking: name in `keras_reid.reranking.IN_GRAPH`.
        gallery: (g, d), embeddings that the model stores; None: each request contains a gallery.
        options: options of the re-ranker, such as k1=20, k2=6, lambda_value=0.3 of k_reciprocal.
            The model stores them.

    Raises:
        InputError: the version exists, the folder cannot be created, the re-ranker is unknown, a
            number is out of range, or the gallery has another embedding size.

    See the guide to serving (docs/serving.md) for clients.
    """
    checks.at_least(1, embedding_dim=embedding_dim)
    if gallery is not None:
        gallery = checked_features(gallery, 2, "gallery")
        if gallery.shape[1] != embedding_dim:
            rule = f"of shape (g, {embedding_dim}), with the embedding size of the queries"
            raise invalid("gallery", rule, gallery.shape)
    options = checked_reranker(reranking, options)
    module = tf.Module()
    signatures = _signatures(embedding_dim, reranking, options)
    about = {"format": "saved_model", "embedding_dim": embedding_dim, "reranking": reranking}
    if gallery is not None:
        module.gallery = tf.Variable(gallery, trainable=False)
        about["gallery_size"] = len(gallery)
        for name in ("rank", "rerank"):
            signatures[f"{name}_known"] = _among(module, signatures[name])

    def write(folder: Path) -> None:
        tf.saved_model.save(module, str(folder), signatures=signatures)
        text = json.dumps({**about, **options}, indent=2)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")
        random = np.random.default_rng(0).standard_normal((32, embedding_dim)).astype(np.float32)
        query = {"query": random[:2], "k": np.array(10, np.int32)}
        requests = [
            (name, query if name.endswith("_known") else {**query, "gallery": random})
            for name in signatures
            if name != "serving_default"
        ]
        write_requests(folder, Path(directory).name, requests)

    return new_version(directory, version, write)


def _signatures(embedding_dim: int, reranking: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the functions that take a gallery, by name."""
    rows = (tf.TensorSpec((None, embedding_dim), tf.float32, name) for name in ("query", "gallery"))
    signature = [*rows, tf.TensorSpec((), tf.int32, name="k")]

    @tf.function(input_signature=signature)
    def rank(query: tf.Tensor, gallery: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        return _answer(*nearest_rows(query, gallery, k))

    @tf.function(input_signature=signature)
    def rerank(query: tf.Tensor, gallery: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        distances = IN_GRAPH[reranking](query, gallery, **options)
        count = tf.clip_by_value(k, 0, tf.shape(distances)[1])
        values, indices = tf.math.top_k(-distances, count)
        return _answer(indices, -values)

    return {"serving_default": rank, "rank": rank, "rerank": rerank}


def _among(module: tf.Module, rank: Any) -> Any:
    """Return `rank` with the gallery of the module."""

    @tf.function(input_signature=rank.input_signature[::2])
    def stored(query: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        return rank(query, module.gallery, k)

    return stored


def checked_reranker(reranking: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return all options of the re-ranker with their defaults.

    Args:
        reranking: name in `keras_reid.reranking.IN_GRAPH`.
        options: chosen options by name.

    Raises:
        InputError: an unknown name or option, or a value out of range.

    Example:
        >>> checked_reranker("average_query_expansion", {"k": 3})
        {'k': 3, 'alpha': 0.0}
    """
    checks.one_of(IN_GRAPH, reranking=reranking)
    function = IN_GRAPH[reranking]
    parameters = list(inspect.signature(function).parameters.values())[2:]
    defaults = {parameter.name: parameter.default for parameter in parameters}
    for name in options:
        checks.one_of(defaults, f"These are the options of {reranking}.", rerank_options=name)
    two = np.eye(2, dtype=np.float32)
    function(two, two, **options)  # raises for values out of range
    return {**defaults, **options}


def _answer(indices: tf.Tensor, distances: tf.Tensor) -> dict[str, tf.Tensor]:
    finite = tf.math.is_finite(distances)
    return {"indices": tf.where(finite, indices, NO_MATCH), "distances": distances}
