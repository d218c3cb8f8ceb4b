"""Models of tracklets: the frames of a clip through one network, pooled over time."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from keras_reid import backbones
from keras_reid.data import Tracklets, clip_batches, image_batches
from keras_reid.errors import InputError
from keras_reid.heads import NECKS, batch_norm, linear
from keras_reid.layers import ClipsToFrames, FramesToClips
from keras_reid.layers.pooling import POOLINGS
from keras_reid.layers.temporal import TEMPORAL
from keras_reid.outputs import NamedOutputs


def build_tracklet(
    backbone: str,
    num_identities: int | None,
    image_size: tuple[int, int] = (256, 128),
    *,
    temporal: str = "mean",
    weights: str = "imagenet",
    pooling: str = "avg",
    neck: str = "bn",
    last_stride: int = 1,
    width: int | None = None,
    mixstyle: float = 0.0,
) -> keras.Model:
    """`{"clips": uint8 (b, t, h, w, 3), "mask": bool (b, t)}` → features, embedding, logits.

    Each frame goes through the backbone and the spatial pooling, the frames that the mask names are
    pooled over time, and neck and classifier are those of `keras_reid.models.build`. At test time
    what is behind the mask changes nothing (Gao and Nevatia, arXiv:1805.02104).

    For losses of single frames beside those of clips there are also `frame_features` `(b · t, d)`
    and, of a neck and classifier of their own, `frame_logits` `(b · t, c)`, whatever the mask says.

    Args:
        backbone, image_size, weights, pooling, neck, last_stride, width, mixstyle: as in
            `models.build`.
        num_identities: c; None leaves `logits` out.
        temporal: "mean", "max", "attention" or "recurrent", see `keras_reid.layers.temporal`.

    Raises:
        InputError: an unknown name or a size below 1.
    """
    for what, name, known in (
        ("temporal", temporal, TEMPORAL),
        ("pooling", pooling, POOLINGS),
        ("neck", neck, NECKS),
    ):
        if name not in known:
            raise InputError(f"{what} is one of {', '.join(known)}: received {name!r}")
    counts = (*image_size, 1 if num_identities is None else num_identities, width or 1)
    if min(counts) < 1:
        raise InputError(
            f"sizes are at least 1: received image_size={image_size}, "
            f"num_identities={num_identities}, width={width}"
        )
    clips = keras.Input((None, *image_size, 3), dtype="uint8", name="clips")
    mask = keras.Input((None,), dtype="bool", name="mask")
    frames = ClipsToFrames(dtype="uint8", name="frames")(clips)
    pixels = keras.layers.Rescaling(1.0, dtype="float32", name="pixels")(frames)
    maps = backbones.build(backbone, weights, image_size, last_stride, mixstyle)(pixels)
    x = POOLINGS[pooling](name="pool")(maps)
    if width is not None:
        x = keras.layers.Dense(width, use_bias=False, name="width")(x)
    of_frames = keras.layers.Activation("linear", dtype="float32", name="frame_features")(x)
    pooled = [FramesToClips(name="frame_vectors")([x, mask]), mask]
    if temporal == "attention":
        pooled.append(FramesToClips(name="frame_maps")([maps, mask]))
    x = TEMPORAL[temporal](name="temporal")(pooled)
    features = keras.layers.Activation("linear", dtype="float32", name="features")(x)
    outputs = {
        "features": features,
        "embedding": NECKS[neck](features),
        "frame_features": of_frames,
    }
    if num_identities is not None:
        outputs["logits"] = linear(outputs["embedding"], num_identities)
        normal = batch_norm(of_frames, "frame_embedding")
        outputs["frame_logits"] = linear(normal, num_identities, "frame_logits")
    return NamedOutputs({"clips": clips, "mask": mask}, outputs, name="tracklet_embedder")


def takes_clips(model: keras.Model) -> bool:
    """Whether a model is one of tracklets."""
    return "clips" in input_names(model)


def input_names(model: keras.Model) -> set[str]:
    """What a model is called with: images alone, or the names of its inputs."""
    return set(model.input) if isinstance(model.input, dict) else {"images"}


def embed_tracklets(
    embed: Callable[[Iterable[Any]], np.ndarray],
    tracklets: Tracklets,
    image_size: tuple[int, int],
    frames: int | None,
    batch_size: int = 16,
) -> np.ndarray:
    """`e/|e|` with e the mean over the clips of a tracklet: `(n, d)`.

    Args:
        embed: from batches to unit embeddings, a `keras_reid.models.Embedder`.
        tracklets: n.
        image_size: (h, w).
        frames: of a clip, for a model of `build_tracklet`; the last one of a tracklet is padded.
            None: each frame is an image, for a model of `keras_reid.models.build`.
        batch_size: clips at a time.
    """
    if frames is None:
        parts = embed(image_batches(tracklets.images, 8 * batch_size, image_size))
        owner = tracklets.owner
    else:
        parts = embed(clip_batches(tracklets, frames, batch_size, image_size))
        owner = np.repeat(
            np.arange(len(tracklets)), [-(-len(f) // frames) for f in tracklets.frames]
        )
    total = np.zeros((len(tracklets), parts.shape[1]), np.float32)
    np.add.at(total, owner, parts)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


__all__ = ["build_tracklet", "embed_tracklets", "input_names", "takes_clips"]
