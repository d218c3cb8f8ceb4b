"""Rows of distances from features and the name of a distance."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import Shown, invalid
from keras_reid.evaluation.local import aligned, summed, visible
from keras_reid.evaluation.sets import SET_DISTANCES, set_distances
from keras_reid.nearest.arrays import Rows as Rows  # noqa: PLC0414  # part of the package's API
from keras_reid.nearest.arrays import checked_features, feature_rows, real_array, unit

FEATURE_DISTANCES = ("euclidean", "cosine", "local", "global_local", "visible", *SET_DISTANCES)

RANKS = {"embedding": 2, "local": 3, "global": 2, "parts": 3, "visibility": 2}

# Features of one set of images: (n, d), (n, s, d), a mapping with embedding and local, or with
# global, parts and visibility; or n arrays (s, d) of tracklets.
Features = Any

# Argument of scores: rows, a matrix (q, g), or the pair of features (query, gallery).
Distances = Any


def compare(
    query: Features,
    gallery: Features,
    distance: str = "euclidean",
    reranking: str = "none",
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Rows:
    """Return the distances of features, optionally re-ranked, for `rank`, `pairs` and `open_set`.

    Args:
        query: array or tensor, compared in float32: (q, d), stripes (q, s, d), or a mapping of
            several such arrays by name.
        gallery: features of g images, in the same form.
        distance: one of
            - "euclidean", `|x − y|`, of features (n, d) or the array "embedding";
            - "cosine", `1 − cos`, of the same; a zero vector is at distance 1 from all others;
            - "local", the aligned distance of stripes (n, s, d), from the top down, or of "local";
            - "global_local", `|x/|x| − y/|y||²` of embedding plus the aligned distance of local
              features of length 1 (DMLI of AlignedReID++);
            - "visible", of global, parts and visibility: `keras_reid.distances.visible`;
            - "min", "mean", "hausdorff" and "mean_min", of tracklets: `set_distances`.
        reranking: "none" or a name of `keras_reid.reranking.RERANKERS`; stripes and tracklets can
            be re-ranked by "k_reciprocal", which then holds their whole distance matrices.
        progress: called with the number of images done and of all while a re-ranker looks for
            neighbors.
        options: options of the re-ranker, such as k1=20, lambda_value=0.3.

    Raises:
        InputError: an unknown name, features that are not finite or do not fit, or options that
            the re-ranker does not have.

    Example:
        >>> rows = compare([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [3.0, 0.0]])
        >>> rows.shape, rows.matrix().tolist()
        ((2, 2), [[0.0, 3.0], [5.0, 4.0]])
    """
    checks.one_of(FEATURE_DISTANCES, distance=distance)
    if reranking == "none" and not options:
        return _rows(query, gallery, distance)
    from keras_reid.reranking import RERANKERS, k_reciprocal_from_distances

    checks.one_of(["none", *RERANKERS], reranking=reranking)
    # Options come after query, gallery and progress.
    names = [] if reranking == "none" else [*signature(RERANKERS[reranking]).parameters][3:]
    if not options.keys() <= {*names}:
        names_of = f"options of {reranking!r}: {', '.join(names) or 'none'}"
        raise invalid("options", names_of, Shown(", ".join(options)))
    texts = ", ".join(f"{key}={value}" for key, value in options.items())
    label = f"{reranking}({texts})" if texts else reranking
    if distance in ("euclidean", "cosine"):
        query, gallery = _both(query, gallery, "embedding")
        if distance == "cosine":
            query, gallery = unit(query), unit(gallery)
        reranked = RERANKERS[reranking](query, gallery, progress, **options)
        return replace(reranked, name=distance, reranking=label)
    if reranking != "k_reciprocal":
        fix = "Other re-rankers need embeddings."
        raise invalid("reranking", f"k_reciprocal for distance {distance!r}", reranking, fix)
    sets = ((query, None), (query, gallery), (gallery, None))
    qq, qg, gg = (matrix(rows, columns, distance) for rows, columns in sets)
    # `global_local` is a sum of squares, which re-ranking takes as they are (AlignedReID++).
    squared = distance == "global_local"
    whole = k_reciprocal_from_distances(qq, qg, gg, squared=squared, **options)
    return matrix_rows(whole.numpy(), distance, label)


def matrix_rows(values: Any, name: str = "given matrix", reranking: str = "none") -> Rows:
    """Return the rows of an existing matrix (q, g), in memory or in a mapped file.

    Args:
        values: distances, smaller means more similar.
        name: name of the distance, for the protocol of results.
        reranking: name of the re-ranker.

    Raises:
        InputError: not a matrix of real numbers.

    Example:
        >>> from keras_reid.evaluation import Labels
        >>> from keras_reid.evaluation import rank
        >>> rows = matrix_rows([[0.2, 0.7]], "hamming")
        >>> rank(rows, Labels([1]), Labels([1, 2]), "no-camera").protocol.distance
        'hamming'
    """
    matrix = real_array(values, 2, "distances")
    dtype = np.result_type(matrix.dtype, np.float32)
    return Rows(matrix.shape, lambda a, b: np.array(matrix[a:b], dtype), name, reranking)


def as_rows(distances: Distances) -> Rows:
    """Return `Rows` unchanged; else the rows of a matrix, or of the features (query, gallery).

    Raises:
        InputError: as `compare` and `matrix_rows`.
    """
    if not isinstance(distances, tuple):
        return distances if isinstance(distances, Rows) else matrix_rows(distances)
    query, gallery = distances
    return compare(query, gallery)


def _rows(query: Features, gallery: Features, distance: str) -> Rows:
    if distance in SET_DISTANCES:
        return matrix_rows(set_distances(query, gallery, distance), distance)
    if distance == "local":
        return aligned(*_both(query, gallery, "local"))
    if distance == "global_local":
        local = aligned(*map(unit, _both(query, gallery, "local")))
        return summed(*_both(query, gallery, "embedding"), local)
    if distance == "visible":
        keys = "global", "parts", "visibility"
        sides = zip(*(_both(query, gallery, key) for key in keys), strict=True)
        return visible(*(dict(zip(keys, side, strict=True)) for side in sides))
    return feature_rows(*_both(query, gallery, "embedding"), distance)


def matrix(
    query: Features, gallery: Features | None = None, distance: str = "euclidean"
) -> np.ndarray:
    """Return all distances (n, m) in float32, computed in blocks: the input of re-ranking.

    Args:
        query: features as in `compare`.
        gallery: features in the same form; None compares the images of the query with each other.
            The diagonal is then set to 0, because the aligned distance of an image to itself is not
            0, and re-ranking requires each image to be its own nearest neighbor.
        distance: as in `compare`.

    Raises:
        InputError: as `compare`.

    Example:
        >>> matrix([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]], distance="cosine").round(3).tolist()
        [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """
    result = compare(query, query if gallery is None else gallery, distance).matrix()
    if gallery is None:
        np.fill_diagonal(result, 0)
    return result


def _both(query: Features, gallery: Features, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of query and gallery of that name, in float32, of one size."""
    query, gallery = (
        checked_features(_named(part, key, split), RANKS[key], split)
        for part, split in ((query, "query"), (gallery, "gallery"))
    )
    if query.shape[-1] != gallery.shape[-1] or 0 in (*query.shape[1:], *gallery.shape[1:]):
        shapes = Shown(f"the shapes {query.shape} and {gallery.shape}")
        fix = "Embed both with the same model."
        raise invalid("query and gallery features", "of the same size, at least 1", shapes, fix)
    return query, gallery


def _named(features: Any, key: str, split: str) -> Any:
    if isinstance(features, Mapping) and key not in features:
        names = Shown(", ".join(sorted(features)))
        raise invalid(f"{split} features", f"a mapping with {key!r}", names)
    return features[key] if isinstance(features, Mapping) else features
