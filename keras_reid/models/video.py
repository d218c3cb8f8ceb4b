"""Models of tracklets: the frames of a clip through one network, pooled over time."""

import keras

from keras_reid import checks
from keras_reid.layers import ClipsToFrames, FramesToClips
from keras_reid.layers.registry import TEMPORAL
from keras_reid.models import backbones
from keras_reid.models.heads import batch_norm, linear
from keras_reid.models.registry import NECKS
from keras_reid.models.reid_model import ReidModel
from keras_reid.models.stem import check, pixels, pooled


# The keyword arguments are the options of a model.
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
    instance_norm: float = 0.0,
) -> keras.Model:
    """`{"clips": uint8 (b, t, h, w, 3), "mask": bool (b, t)}` → features, embedding, logits.

    Each frame passes the backbone and the spatial pooling. The frames of the mask are pooled over
    time. Neck and classifier are those of `keras_reid.models.build`. At test time masked frames
    have no effect (Gao and Nevatia, arXiv:1805.02104).

    Additional outputs for losses of single frames are `frame_features` `(b · t, d)` and
    `frame_logits` `(b · t, c)`, with another neck and classifier and without the mask.

    Args:
        backbone: a name or a file, see `keras_reid.models.backbones.build`.
        num_identities: c; None: no `logits`.
        image_size: (height, width) of a frame in pixels.
        temporal: "mean", "max", "attention" or "recurrent", see `keras_reid.layers.temporal`.
        weights: `"imagenet"`, `"none"` or a `.weights.h5` file of the backbone.
        pooling: `"avg"`, `"max"`, `"avg_max"` or `"gem"`, as in `models.build`.
        neck: `"bn"` or `"none"`, as in `models.build`.
        last_stride: 1 keeps a feature map of twice the height and width, 2 is as published.
        width: d; None keeps the size of the backbone.
        mixstyle: probability that the styles of a training batch are mixed, in [0, 1].
        instance_norm: fraction of the channels with instance normalization, in [0, 1].

    Returns:
        A `ReidModel`.

    Raises:
        InputError: an unknown name or a size below 1.

    Example:
        >>> model = build_tracklet("tiny", 10, (64, 32), weights="none")
        >>> {name: tuple(model.output[name].shape) for name in ("features", "frame_features")}
        {'features': (None, 128), 'frame_features': (None, 128)}
    """
    check(image_size, width, num_identities, pooling=pooling, neck=neck)
    checks.one_of(TEMPORAL, temporal=temporal)
    clips = keras.Input((None, *image_size, 3), dtype="uint8", name="clips")
    mask = keras.Input((None,), dtype="bool", name="mask")
    frames = ClipsToFrames(dtype="uint8", name="frames")(clips)
    trunk = backbones.build(backbone, weights, image_size, last_stride, mixstyle, instance_norm)
    maps = trunk(pixels(frames))
    x = pooled(maps, pooling, width)
    of_frames = keras.layers.Activation("linear", dtype="float32", name="frame_features")(x)
    over_time = [FramesToClips(name="frame_vectors")([x, mask]), mask]
    if temporal == "attention":
        over_time.append(FramesToClips(name="frame_maps")([maps, mask]))
    x = TEMPORAL[temporal](name="temporal")(over_time)
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
    return ReidModel({"clips": clips, "mask": mask}, outputs, name="tracklet_embedder")
