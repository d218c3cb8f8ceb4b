"""From a matrix, or from features and the name of a distance, to rows of distances."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np

from keras_reid.errors import InputError
from keras_reid.evaluation.local import AlignedRows, SummedRows, VisibleRows
from keras_reid.evaluation.rows import DistanceRows, FeatureRows, MatrixRows, unit

FEATURE_DISTANCES = ("euclidean", "cosine", "local", "global_local", "visible")

# `|x − y|²` and something added by definition, so that re-ranking, which works on squares, takes
# them as they are (AlignedReID++).
SQUARED = ("global_local",)

BLOCK_ELEMENTS = 2**22  # 16 MiB of float32 distances at a time

# Of one set of images: (n, d), (n, s, d), or a mapping: embedding and local, or global, parts and
# visibility.
Features = np.ndarray | Mapping[str, np.ndarray]


def distance_rows(
    distances: np.ndarray | tuple[Features, Features],
    distance: str | None,
    reranking: str = "none",
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DistanceRows:
    """Rows of a (q, g) matrix, or of the distances between the features (query, gallery).

    Those of features are re-ranked, of a matrix they are taken to be.
    """
    options = options or {}
    if reranking == "none" or not isinstance(distances, tuple):
        if options:
            raise InputError(
                f"reranking_options belong to a re-ranker of features, received {dict(options)}: "
                "name one as reranking and pass features"
            )
        return _distance_rows(distances, distance)
    distance = _checked_distance(distances, distance)
    _check_reranker(reranking, options)
    from keras_reid.reranking import RERANKERS, k_reciprocal_from_distances

    if distance in ("euclidean", "cosine"):
        query, gallery = _both(distances, "embedding", 2)
        if distance == "cosine":
            query, gallery = unit(query), unit(gallery)
        return replace(RERANKERS[reranking](query, gallery, progress, **options), distance=distance)
    if reranking != "k_reciprocal":
        raise InputError(
            "distances of stripes are re-ranked by k_reciprocal alone, received "
            f"{reranking!r}: the others need features, so choose it or compare embeddings"
        )
    sets = ((distances[0], None), distances, (distances[1], None))
    qq, qg, gg = (matrix(query, gallery, distance) for query, gallery in sets)
    reranked = k_reciprocal_from_distances(qq, qg, gg, squared=distance in SQUARED, **options)
    return MatrixRows(reranked.numpy(), distance)


def _check_reranker(name: str, options: Mapping[str, Any]) -> None:
    from keras_reid.reranking import RERANKERS

    if name not in RERANKERS:
        raise InputError(
            f"reranking is none or one of {', '.join(RERANKERS)}, received {name!r}: choose "
            "one of these."
        )
    known = list(signature(RERANKERS[name]).parameters)[3:]  # after query, gallery and progress
    if not set(options) <= set(known):
        raise InputError(
            f"{name} has other options, received {dict(options)}: it takes {', '.join(known)}"
        )


def _distance_rows(
    distances: np.ndarray | tuple[Features, Features], distance: str | None
) -> DistanceRows:
    if not isinstance(distances, tuple):
        return MatrixRows(_real(distances, 2, "distance matrix"), distance or "given matrix")
    distance = _checked_distance(distances, distance)
    if distance == "local":
        return AlignedRows(*_both(distances, "local", 3))
    if distance == "global_local":
        local = (unit(stripes) for stripes in _both(distances, "local", 3, mapped=True))
        return SummedRows(
            FeatureRows(*_both(distances, "embedding", 2, mapped=True), "cosine"),
            AlignedRows(*local),
        )
    if distance == "visible":
        ranks = {"global": 2, "parts": 3, "visibility": 2}
        sides = {k: _both(distances, k, rank, mapped=True) for k, rank in ranks.items()}
        query, gallery = ({k: both[i] for k, both in sides.items()} for i in (0, 1))
        for side in (query, gallery):
            if side["parts"].shape[:2] != side["visibility"].shape or side["visibility"].min() < 0:
                raise InputError(
                    "Each part has a visibility of at least 0, received parts "
                    f"{side['parts'].shape} and visibility {side['visibility'].shape}: pass what "
                    "one model gives."
                )
        return VisibleRows(query, gallery)
    return FeatureRows(*_both(distances, "embedding", 2), distance)


def _checked_distance(features: tuple[Features, Features], distance: str | None) -> str:
    distance = distance or "euclidean"
    if distance not in FEATURE_DISTANCES:
        raise InputError(
            f"Features are compared by one of {', '.join(FEATURE_DISTANCES)}, received "
            f"{distance!r}: choose one or pass your own distance matrix."
        )
    if len(features) != 2:
        raise InputError(
            f"Features are the tuple (query, gallery), received {len(features)} parts: "
            "pass two, or one distance matrix as an array."
        )
    return distance


def matrix(
    query: Features, gallery: Features | None = None, distance: str = "euclidean"
) -> np.ndarray:
    """All distances (n, m) in float32, computed in blocks: the input of re-ranking.

    Args:
        query, gallery: features as in `rank`; gallery None compares the images of one set with each
            other. The diagonal is then 0 by force, for the aligned distance of an image to itself
            is not: others could come before the image itself, which re-ranking rules out.
        distance: as in `rank`; "euclidean" is `|x − y|` and "cosine" `1 − cos`, as for `pairs`.

    Raises:
        InputError: as `rank`.
    """
    shape, blocks = scaled_rows((query, query if gallery is None else gallery), distance)
    result = np.empty(shape, np.float32)
    for start, rows in blocks:
        result[start : start + len(rows)] = rows
    if gallery is None:
        np.fill_diagonal(result, 0)
    return result


def scaled_rows(
    distances: np.ndarray | tuple[Features, Features], distance: str | None
) -> tuple[tuple[int, int], Iterator[tuple[int, np.ndarray]]]:
    """The shape, and blocks of rows with their start, of distances as their names say.

    `|x − y|` and `1 − cos`, where a ranking, which looks at the order alone, has `|x − y|²` of the
    features or of unit vectors.
    """
    source = distance_rows(distances, distance)
    scales: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "euclidean": lambda squared: np.sqrt(np.maximum(squared, 0)),
        "cosine": lambda squared: squared / 2,
    }
    scale = scales.get(source.distance) if isinstance(distances, tuple) else None
    step = max(1, BLOCK_ELEMENTS // max(1, source.shape[1]))

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, source.shape[0], step):
            rows = source.rows(start, start + step)
            yield start, rows if scale is None else scale(rows)

    return source.shape, blocks()


def _both(
    features: tuple[Any, Any], key: str, rank: int, mapped: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The features of query and gallery of that name, in float32 and of one width."""
    query, gallery = (
        checked_features(_named(part, key, split, mapped), rank, split)
        for part, split in zip(features, ("query", "gallery"), strict=True)
    )
    if query.shape[-1] != gallery.shape[-1] or 0 in (*query.shape[1:], *gallery.shape[1:]):
        raise InputError(
            "Query and gallery features must have the same width of at least 1, received "
            f"{_widths(query)} and {_widths(gallery)}: embed both with the same model."
        )
    return query, gallery


def _widths(features: np.ndarray) -> str:
    return "×".join(map(str, features.shape[1:]))


def _named(features: Any, key: str, split: str, mapped: bool) -> Any:
    if isinstance(features, Mapping) and key in features:
        return features[key]
    if isinstance(features, Mapping) or mapped:
        given = f"{sorted(features)}" if isinstance(features, Mapping) else "no mapping"
        raise InputError(
            f"This distance needs the {split} features {key!r}, received {given}: pass the mapping "
            "that keras_reid.models.Embedder(model, local=True) returns."
        )
    return features


def checked_features(values: Any, rank: int, split: str) -> np.ndarray:
    array = _real(values, rank, f"{split} feature matrix")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
    if len(bad):
        raise InputError(
            f"Features must be finite in float32, received NaN or Inf in {len(bad)} {split} "
            f"rows, first row {bad[0]}: drop those images or mend the model."
        )
    return array


def _real(values: Any, rank: int, what: str) -> np.ndarray:
    """The values as an array of real numbers, not copied (a memory map stays one)."""
    try:
        array = np.asarray(values)
        real = np.result_type(array.dtype, np.float32).kind == "f"
    except (ValueError, TypeError):  # a ragged list, or types that NumPy cannot join
        raise InputError(
            f"A {what} is one {rank}-D array of numbers, received a {type(values).__name__} that "
            "is not: pass an array, or features as the tuple (query, gallery)."
        ) from None
    if array.ndim != rank or not real:
        raise InputError(
            f"A {what} is {rank}-D and of real numbers, received shape {array.shape} of "
            f"{array.dtype}: pass such an array, or features as the tuple (query, gallery)."
        )
    return array
