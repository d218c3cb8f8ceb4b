"""Engines of `embed` by the names that flags use."""

from collections.abc import Callable, Iterator

from keras_reid.registry import Registry

# `(shards, missing, worker, workers)` → numbers of the shards that this call embedded.
ENGINES: Registry[Callable[..., Iterator[int]]] = Registry(
    local="keras_reid.scale.embedding:embed_here",
    ray="keras_reid.scale.embedding:embed_on_ray",
)
