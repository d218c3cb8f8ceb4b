"""Ranking and re-ranking as a SavedModel, so that a server can do the whole job."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.errors import InputError
from keras_reid.reranking import k_reciprocal
from keras_reid.serving.contract import FILE
from keras_reid.serving.saved_model import write_requests
from keras_reid.serving.versions import new_version


def export_ranker(
    directory: str | os.PathLike[str],
    width: int,
    version: int | None = None,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> Path:
    """Writes the SavedModel `directory/version/`, which ranks embeddings, and returns it.

    `rank`, also `serving_default`: `query` `(q, d)`, `gallery` `(g, d)` and `k` → `indices`
    `(q, min(k, g))` int32 of the nearest gallery rows, nearest first, and their `distances`
    `|x − y|`; equal distances are ordered by index. `rerank`: the same inputs → `indices` and
    `distances` by `keras_reid.reranking.k_reciprocal` of all the queries together with the gallery,
    or with a shortlist of it.

    Args:
        directory, version: as in `export`.
        width: d.
        k1, k2, lambda_value: of the re-ranking; they are part of the model.

    Raises:
        InputError: the version exists, the folder cannot be made, or numbers out of range.
    """
    if width < 1:
        raise InputError(f"embeddings have at least one number: received width={width}")
    options: dict[str, Any] = {"k1": k1, "k2": k2, "lambda_value": lambda_value}
    k_reciprocal(np.zeros((1, 1)), np.zeros((1, 1)), **options)  # refuses what is out of range
    signature = [
        tf.TensorSpec((None, width), tf.float32, name="query"),
        tf.TensorSpec((None, width), tf.float32, name="gallery"),
        tf.TensorSpec((), tf.int32, name="k"),
    ]

    @tf.function(input_signature=signature)
    def rank(query: tf.Tensor, gallery: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        centre = tf.reduce_mean(gallery, axis=0)  # less is lost where products cancel
        x, y = query - centre, gallery - centre
        norms = tf.reduce_sum(x * x, axis=1)[:, None] + tf.reduce_sum(y * y, axis=1)
        squared = tf.maximum(norms - 2 * tf.matmul(x, y, transpose_b=True), 0)
        indices = _first(squared, k)
        difference = tf.gather(y, indices) - x[:, None]
        distances = tf.sqrt(tf.reduce_sum(difference * difference, axis=2))
        order = tf.argsort(distances, axis=1, stable=True)
        return {
            "indices": tf.gather(indices, order, batch_dims=1),
            "distances": tf.gather(distances, order, batch_dims=1),
        }

    @tf.function(input_signature=signature)
    def rerank(query: tf.Tensor, gallery: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        distances = k_reciprocal(query, gallery, **options)
        indices = _first(distances, k)
        return {"indices": indices, "distances": tf.gather(distances, indices, batch_dims=1)}

    signatures = {"serving_default": rank, "rank": rank, "rerank": rerank}

    def write(folder: Path) -> None:
        tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)
        about: dict[str, Any] = {"format": "saved_model", "embedding_width": width, **options}
        (folder / FILE).write_text(json.dumps(about, indent=2) + "\n")
        random = np.random.default_rng(0).standard_normal((32, width)).astype(np.float32)
        given = {"query": random[:2], "gallery": random, "k": np.array(10, np.int32)}
        requests = [(name, given) for name in ("rank", "rerank")]
        write_requests(folder, Path(directory).name, requests)

    return new_version(directory, version, write)


def _first(distances: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Indices (q, min(k, g)) of the smallest, equal ones by index, as `top_k` has it."""
    return tf.math.top_k(-distances, tf.clip_by_value(k, 0, tf.shape(distances)[1])).indices
