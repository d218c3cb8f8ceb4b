"""Ranking and re-ranking as a SavedModel, so that a server can do the whole job."""

import inspect
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.inference.metadata import FILE
from keras_reid.nearest.arrays import checked_features
from keras_reid.nearest.graph import nearest_rows
from keras_reid.reranking import IN_GRAPH
from keras_reid.serving.saved_model import write_requests
from keras_reid.serving.versions import new_version

NOBODY = -1  # the index where there is no more finite row


def export_ranker(
    directory: str | os.PathLike[str],
    width: int,
    version: int | None = None,
    reranking: str = "k_reciprocal",
    gallery: Any = None,
    **options: Any,
) -> Path:
    """Writes the SavedModel `directory/version/`, which ranks embeddings, and returns it.

    `rank`, also `serving_default`: `query` `(q, d)`, `gallery` `(g, d)` and `k` → `indices`
    `(q, min(k, g))` int32 of the nearest gallery rows, nearest first, and their `distances`
    `|x − y|`; equal distances are ordered by index. `rerank`: the same inputs → `indices` and
    `distances` by a re-ranker, of all the queries together with the gallery, or with a shortlist of
    it. With a gallery in the model `rank_known` and `rerank_known`: `query` and `k` alone.

    A row that is not finite is never found, is nobody's neighbor, and as a query finds nobody; no
    other answer changes. Where nobody is left the index is -1 and the distance infinite.

    Args:
        directory, version: as in `export`.
        width: d.
        reranking: a name in `keras_reid.reranking.IN_GRAPH`.
        gallery: (g, d), embeddings that stay on the server, of which `indices` are rows; None:
            each request brings its own.
        options: of the re-ranker, such as k1=20, k2=6, lambda_value=0.3 of k_reciprocal; they are
            part of the model.

    Raises:
        InputError: the version exists, the folder cannot be made, an unknown re-ranker, numbers
            out of range, or a gallery of another width.
    """
    checks.at_least(1, width=width)
    if gallery is not None:
        gallery = checked_features(gallery, 2, "gallery")
        if gallery.shape[1] != width:
            raise InputError(
                f"a ranker's gallery is (g, {width}) here, as its queries: received {gallery.shape}"
            )
    options = checked_reranker(reranking, options)
    signature = [
        tf.TensorSpec((None, width), tf.float32, name="query"),
        tf.TensorSpec((None, width), tf.float32, name="gallery"),
        tf.TensorSpec((), tf.int32, name="k"),
    ]

    @tf.function(input_signature=signature)
    def rank(query: tf.Tensor, gallery: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        return _answer(*nearest_rows(query, gallery, k))

    @tf.function(input_signature=signature)
    def rerank(query: tf.Tensor, gallery: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        distances = IN_GRAPH[reranking](query, gallery, **options)
        count = tf.clip_by_value(k, 0, tf.shape(distances)[1])
        values, indices = tf.math.top_k(-distances, count)
        return _answer(indices, -values)

    signatures = {"serving_default": rank, "rank": rank, "rerank": rerank}
    module = tf.Module()
    if gallery is not None:
        module.gallery = tf.Variable(gallery, trainable=False)
        for name, among in (("rank_known", rank), ("rerank_known", rerank)):
            signatures[name] = _among(module, among, signature[::2])

    def write(folder: Path) -> None:
        tf.saved_model.save(module, str(folder), signatures=signatures)
        about = {"format": "saved_model", "embedding_dim": width, "reranking": reranking}
        if gallery is not None:
            about["gallery_size"] = len(gallery)
        text = json.dumps({**about, **options}, indent=2)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")
        random = np.random.default_rng(0).standard_normal((32, width)).astype(np.float32)
        given = {"query": random[:2], "gallery": random, "k": np.array(10, np.int32)}
        requests = [(name, given) for name in ("rank", "rerank")]
        few = {"query": given["query"], "k": given["k"]}
        requests += [(name, few) for name in signatures if name.endswith("_known")]
        write_requests(folder, Path(directory).name, requests)

    return new_version(directory, version, write)


def _among(module: tf.Module, rank: Any, signature: list[tf.TensorSpec]) -> Any:
    """`rank` of queries among the gallery of the module."""

    @tf.function(input_signature=signature)
    def known(query: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        return rank(query, module.gallery, k)

    return known


def checked_reranker(reranking: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of the re-ranker, the defaults too."""
    checks.one_of(IN_GRAPH, "of these the graph can be exported", reranking=reranking)
    taken = list(inspect.signature(IN_GRAPH[reranking]).parameters.values())[2:]
    known = {parameter.name: parameter.default for parameter in taken}
    if not options.keys() <= known.keys():
        raise InputError(
            f"{reranking} has the options {', '.join(known)}: received {', '.join(options)}"
        )
    two = np.eye(2, dtype=np.float32)
    IN_GRAPH[reranking](two, two, **options)  # refuses what is out of range
    return {**known, **options}


def _answer(indices: tf.Tensor, distances: tf.Tensor) -> dict[str, tf.Tensor]:
    found = tf.math.is_finite(distances)
    return {"indices": tf.where(found, indices, NOBODY), "distances": distances}
