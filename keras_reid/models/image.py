"""Models of images: backbone, pooling, neck, classifier and heads."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_reid.errors import InputError, invalid
from keras_reid.layers import Centers
from keras_reid.models import backbones
from keras_reid.models.heads import Head, inputs_of, no_neck
from keras_reid.models.registry import CLASSIFIERS, NECKS
from keras_reid.models.reid_model import ReidModel
from keras_reid.models.stem import check, pixels, pooled

PROJECTION = "teacher"  # output that imitates the embedding of a teacher


# The keyword arguments are the options of a model.
def build(
    backbone: str,
    num_identities: int | None,
    image_size: tuple[int, int] = (256, 128),
    *,
    weights: str = "imagenet",
    pooling: str = "avg",
    neck: str = "bn",
    embedding: str = "neck",
    last_stride: int = 1,
    width: int | None = None,
    classifier: str = "linear",
    centers: bool = False,
    mixstyle: float = 0.0,
    instance_norm: float = 0.0,
    heads: Sequence[Head] = (),
) -> keras.Model:
    """uint8 images `(b, h, w, 3)` → `{"features": (b, d), "embedding": (b, d), "logits": (b, c)}`.

    The strong baseline of Luo et al. (Bag of Tricks, CVPRW 2019, arXiv:1903.07071): metric losses
    act on `features`, before the neck; retrieval and the classifier use `embedding`, after it.
    The model normalizes the pixels.

    Args:
        backbone: a name or a file, see `keras_reid.models.backbones.build`.
        num_identities: c, the number of training identities; None: no `logits`.
        image_size: (height, width) in pixels.
        weights: `"imagenet"`, `"none"` or a `.weights.h5` file of the backbone.
        pooling: `"avg"`, `"max"`, `"avg_max"` (their sum) or `"gem"` (generalized mean).
        neck: `"bn"` (BNNeck: batch normalization without shift) or `"none"`.
        embedding: `"neck"`: the embedding is the output of the neck; `"features"`: its input, which
            the metric losses compare, so that only the classifier uses the neck.
        last_stride: 1 keeps a feature map of twice the height and width, 2 is as published.
        width: d; None keeps the size of the backbone.
        classifier: `"linear"`, or `"cosine"`: `logits` are then cosines in [−1, 1], for
            `keras_reid.losses.MarginSoftmaxLoss`.
        centers: adds the output `centers` `(b, c)`, the squared distances of `features` to one
            learned center per identity, for `keras_reid.losses.CenterLoss`.
        mixstyle: probability that the styles of a training batch are mixed, in [0, 1], see
            `keras_reid.models.backbones.build`.
        instance_norm: fraction of the channels with instance normalization, in [0, 1].
        heads: heads of `keras_reid.models.heads` for more outputs. A head with the output
            `embedding` replaces neck and classifier. With `PoseHead` the model takes the dict of
            `images` and `keypoints` `(b, k, 3)`.

    Returns:
        A `ReidModel`.

    Raises:
        InputError: an unknown name, centers without identities, weights that do not match, or two
            heads with the same output.

    Example:
        >>> import numpy as np
        >>> model = build("tiny", num_identities=10, image_size=(64, 32), weights="none")
        >>> outputs = model(np.zeros((2, 64, 32, 3), "uint8"))
        >>> {name: tuple(output.shape) for name, output in outputs.items()}
        {'features': (2, 128), 'embedding': (2, 128), 'logits': (2, 10)}
    """
    choices = {"pooling": pooling, "neck": neck, "embedding": embedding, "classifier": classifier}
    check(image_size, width, num_identities, **choices)
    if centers and num_identities is None:
        raise invalid("num_identities", "a number if `centers` is set", None)

    images = keras.Input((*image_size, 3), dtype="uint8", name="images")
    trunk = backbones.build(backbone, weights, image_size, last_stride, mixstyle, instance_norm)
    maps = trunk(pixels(images))
    x = pooled(maps, pooling, width)
    features = keras.layers.Activation("linear", dtype="float32", name="features")(x)
    inputs = {"images": images}
    for head in heads:
        for name, shape in inputs_of(head).items():
            inputs[name] = keras.Input(shape, name=name)
    outputs = _outputs_of(heads, maps, num_identities, {"features": features, **inputs})
    if "embedding" not in outputs:
        behind = NECKS[neck](features, "embedding" if embedding == "neck" else "neck")
        outputs["embedding"] = behind if embedding == "neck" else no_neck(features)
        if num_identities is not None:
            outputs["logits"] = CLASSIFIERS[classifier](behind, num_identities)
    if centers and num_identities is not None:
        outputs["centers"] = Centers(num_identities, name="centers")(features)
    return ReidModel(images if len(inputs) == 1 else inputs, outputs, name="embedder")


def with_projection(model: keras.Model, size: int) -> ReidModel:
    """Return the model with the output `teacher` `(b, size)`, for the embedding of a teacher.

    It is a linear projection of the embedding, or the embedding itself if it has that size.
    Exported embedders do not contain it.

    Args:
        model: model of `build`.
        size: embedding size of the teacher.

    Example:
        >>> model = with_projection(build("tiny", None, (64, 32), weights="none"), 256)
        >>> {name: output.shape[1] for name, output in model.output.items()}
        {'features': 128, 'embedding': 128, 'teacher': 256}
    """
    x = model.output["embedding"]
    options: dict[str, Any] = {"dtype": "float32", "name": PROJECTION}
    equal = x.shape[-1] == size
    layer = keras.layers.Identity(**options) if equal else keras.layers.Dense(size, **options)
    return ReidModel(model.input, {**model.output, PROJECTION: layer(x)}, name=model.name)


def _outputs_of(
    heads: Sequence[Head], maps: Any, num_identities: int | None, tensors: dict[str, Any]
) -> dict[str, Any]:
    """Return the features and the outputs of all heads.

    Args:
        heads: heads of `keras_reid.models.heads`.
        maps: feature map `(b, h, w, d)`.
        num_identities: c, or None.
        tensors: features and inputs by name, which a head may need.
    """
    outputs = {"features": tensors["features"]}
    for head in heads:
        needed = {name: tensors[name] for name in getattr(head, "needs", ())}
        more = head(maps, num_identities, **needed)
        if twice := sorted(outputs.keys() & more.keys()):
            raise InputError(f"Two heads have the outputs {twice}. Use one of them.", "heads")
        outputs |= more
    return outputs
