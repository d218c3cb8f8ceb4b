"""What is compared: from features and the name of a distance to rows of distances."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.evaluation.local import aligned, summed, visible
from keras_reid.nearest.arrays import Rows, checked_features, feature_rows, real_array, unit

FEATURE_DISTANCES = ("euclidean", "cosine", "local", "global_local", "visible")

# `|x − y|²` and something added by definition, so that re-ranking, which works on squares, takes
# them as they are (AlignedReID++).
SQUARED = ("global_local",)

# Of one set of images: (n, d), (n, s, d), or a mapping: embedding and local, or global, parts and
# visibility.
Features = Any

# What scores accept: rows, a matrix (q, g), or the pair of features (query, gallery).
Compared = Any


def compare(
    query: Features,
    gallery: Features,
    distance: str = "euclidean",
    reranking: str = "none",
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Rows:
    """The distances of features, re-ranked if asked, as rows for `rank`, `pairs` and `open_set`.

    Args:
        query, gallery: arrays or tensors, compared in float32: (n, d), stripes (n, s, d), or the
            mapping of several.
        distance: of features (n, d), or embedding, "euclidean" (`|x − y|`) or "cosine"
            (`1 − cos`), under which a zero vector is at distance 1 from everything; of stripes
            (n, s, d), or local, "local": the aligned distance, from the top of the images down; of
            mappings "global_local": `|x/|x| − y/|y||²` of embedding plus the aligned distance of
            local features of length 1 (DMLI of AlignedReID++), "visible": the whole and the parts
            that both images show, of global, parts and visibility
            (`keras_reid.distances.visible`).
        reranking: "none" or a name of `keras_reid.reranking.RERANKERS`; stripes can be re-ranked
            by "k_reciprocal", which then holds their whole distance matrices.
        progress: called with the number of images done and of all, while neighbors are looked
            for by a re-ranker.
        options: of the re-ranker, such as k1=20, lambda_value=0.3.

    Raises:
        InputError: an unknown name, features that are not finite or do not fit, or options of no
            re-ranker.
    """
    hint = "choose one, or pass your own distance matrix"
    checks.one_of(FEATURE_DISTANCES, hint, distance=distance)
    if reranking == "none":
        if options:
            raise InputError(
                f"options belong to a re-ranker of features, received {options}: name one as "
                "reranking"
            )
        return _rows(query, gallery, distance)
    from keras_reid.reranking import RERANKERS, k_reciprocal_from_distances

    checks.one_of(["none", *RERANKERS], reranking=reranking)
    known = list(signature(RERANKERS[reranking]).parameters)[3:]  # after query, gallery, progress
    if not options.keys() <= set(known):
        raise InputError(
            f"{reranking} has other options, received {options}: it takes {', '.join(known)}"
        )
    given = ", ".join(f"{key}={value}" for key, value in options.items())
    label = f"{reranking}({given})" if given else reranking
    if distance in ("euclidean", "cosine"):
        query, gallery = _both(query, gallery, "embedding", 2)
        if distance == "cosine":
            query, gallery = unit(query), unit(gallery)
        reranked = RERANKERS[reranking](query, gallery, progress, **options)
        return replace(reranked, name=distance, reranking=label)
    if reranking != "k_reciprocal":
        raise InputError(
            "distances of stripes are re-ranked by k_reciprocal alone, received "
            f"{reranking!r}: the others need features, so choose it or compare embeddings"
        )
    sets = ((query, None), (query, gallery), (gallery, None))
    qq, qg, gg = (matrix(rows, columns, distance) for rows, columns in sets)
    whole = k_reciprocal_from_distances(qq, qg, gg, squared=distance in SQUARED, **options)
    return matrix_rows(whole.numpy(), distance, label)


def matrix_rows(values: Any, name: str = "given matrix", reranking: str = "none") -> Rows:
    """Rows of a matrix (q, g) that exists, in memory or in a mapped file.

    Args:
        values: distances, smaller is more alike.
        name, reranking: names of the distance and of the re-ranker, for the protocol of results.

    Raises:
        InputError: not a matrix of real numbers.
    """
    matrix = real_array(values, 2, "distances")
    dtype = np.result_type(matrix.dtype, np.float32)

    def rows(start: int, stop: int) -> np.ndarray:
        return np.array(matrix[start:stop], dtype)

    return Rows(matrix.shape, rows, name, reranking)


def as_rows(compared: Compared) -> Rows:
    """Rows as they are, those of a matrix, or of the features (query, gallery) by `compare`."""
    if isinstance(compared, tuple):
        if len(compared) != 2:
            raise InputError(
                f"Features are the tuple (query, gallery), received {len(compared)} parts: "
                "pass two, or one distance matrix as an array."
            )
        return compare(*compared)
    return compared if isinstance(compared, Rows) else matrix_rows(compared)


def _rows(query: Features, gallery: Features, distance: str) -> Rows:
    if distance == "local":
        return aligned(*_both(query, gallery, "local", 3))
    if distance == "global_local":
        local = (unit(stripes) for stripes in _both(query, gallery, "local", 3, mapped=True))
        whole = _both(query, gallery, "embedding", 2, mapped=True)
        return summed(*whole, aligned(*local))
    if distance == "visible":
        ranks = {"global": 2, "parts": 3, "visibility": 2}
        named = {k: _both(query, gallery, k, rank, mapped=True) for k, rank in ranks.items()}
        sides = [{k: both[i] for k, both in named.items()} for i in (0, 1)]
        for side in sides:
            if side["parts"].shape[:2] != side["visibility"].shape or side["visibility"].min() < 0:
                raise InputError(
                    "Each part has a visibility of at least 0, received parts "
                    f"{side['parts'].shape} and visibility {side['visibility'].shape}: pass what "
                    "one model gives."
                )
        return visible(*sides)
    return feature_rows(*_both(query, gallery, "embedding", 2), distance)


def matrix(
    query: Features, gallery: Features | None = None, distance: str = "euclidean"
) -> np.ndarray:
    """All distances (n, m) in float32, computed in blocks: the input of re-ranking.

    Args:
        query, gallery: features as in `compare`; gallery None compares the images of one set with
            each other. The diagonal is then 0 by force, for the aligned distance of an image to
            itself is not: others could come before the image itself, which re-ranking rules out.
        distance: as in `compare`.

    Raises:
        InputError: as `compare`.
    """
    result = compare(query, query if gallery is None else gallery, distance).matrix()
    if gallery is None:
        np.fill_diagonal(result, 0)
    return result


def _both(
    query: Features, gallery: Features, key: str, rank: int, mapped: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The features of query and gallery of that name, in float32 and of one width."""
    query, gallery = (
        checked_features(_named(part, key, split, mapped), rank, split)
        for part, split in ((query, "query"), (gallery, "gallery"))
    )
    if query.shape[-1] != gallery.shape[-1] or 0 in (*query.shape[1:], *gallery.shape[1:]):
        raise InputError(
            "Query and gallery features must have the same width of at least 1, got the shapes "
            f"{query.shape} and {gallery.shape}. Embed both with the same model."
        )
    return query, gallery


def _named(features: Any, key: str, split: str, mapped: bool) -> Any:
    if isinstance(features, Mapping) and key in features:
        return features[key]
    if isinstance(features, Mapping) or mapped:
        given = f"{sorted(features)}" if isinstance(features, Mapping) else "no mapping"
        raise InputError(
            f"This distance needs the {split} features {key!r}, received {given}: pass the mapping "
            "that an embedder with the outputs embedding and local returns."
        )
    return features
