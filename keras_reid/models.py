"""Embedders: a backbone, a pooling, a neck and a classifier behind named outputs."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_reid import backbones
from keras_reid.errors import InputError
from keras_reid.heads import Head
from keras_reid.layers import Centres, CosineClassifier, StripePooling
from keras_reid.layers.pooling import POOLINGS
from keras_reid.verifier import build_pair_verifier, pair_distances


def _batch_norm(x: Any) -> Any:
    # No shift: a classifier without bias then sees identities spread around the origin.
    # Statistics follow quickly, because re-identification is trained in few, large steps.
    return keras.layers.BatchNormalization(center=False, momentum=0.9, name="embedding")(x)


def _no_neck(x: Any) -> Any:
    return keras.layers.Identity(name="embedding")(x)


def _linear(x: Any, num_identities: int) -> Any:
    return keras.layers.Dense(
        num_identities,
        use_bias=False,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
        dtype="float32",
        name="logits",
    )(x)


def _cosine(x: Any, num_identities: int) -> Any:
    return CosineClassifier(num_identities, name="logits")(x)


__all__ = [
    "CLASSIFIERS",
    "NECKS",
    "POOLINGS",
    "Embedder",
    "build",
    "build_pair_verifier",
    "embed",
    "embedder",
    "ensemble",
    "joined",
    "outputs_at_test",
    "pair_distances",
    "stripes",
    "unit_outputs",
]

NECKS: dict[str, Callable[[Any], Any]] = {"bn": _batch_norm, "none": _no_neck}
CLASSIFIERS: dict[str, Callable[[Any, int], Any]] = {"linear": _linear, "cosine": _cosine}


def build(
    backbone: str,
    num_identities: int | None,
    image_size: tuple[int, int] = (256, 128),
    *,
    weights: str = "imagenet",
    pooling: str = "avg",
    neck: str = "bn",
    last_stride: int = 1,
    width: int | None = None,
    classifier: str = "linear",
    centres: bool = False,
    heads: Sequence[Head] = (),
) -> keras.Model:
    """uint8 images `(b, h, w, 3)` → `{"features": (b, d), "embedding": (b, d), "logits": (b, c)}`.

    The strong baseline of Luo et al. (Bag of Tricks, CVPRW 2019, arXiv:1903.07071): metric losses
    act on `features`, before the neck; retrieval and the classifier use `embedding`, after it.
    Normalisation of the pixels is inside.

    Args:
        backbone: a name or a file, see `keras_reid.backbones.build`.
        num_identities: c, the number of identities to classify; None leaves `logits` out.
        image_size: (height, width) in pixels.
        weights: `"imagenet"`, `"none"` or a `.weights.h5` file of the backbone.
        pooling: `"avg"`, `"max"` or `"gem"` (generalized mean).
        neck: `"bn"` (BNNeck: batch normalisation without shift) or `"none"`.
        last_stride: 1 keeps a feature map of twice the height and width, 2 is as published.
        width: d; None keeps the backbone's own.
        classifier: `"linear"`, or `"cosine"`: `logits` are then cosines in [−1, 1], for
            `keras_reid.losses.MarginSoftmaxLoss`.
        centres: adds the output `centres` `(b, c)`, the squared distances of `features` to one
            learned centre per identity, for `keras_reid.losses.CenterLoss`.
        heads: of `keras_reid.heads`, for more outputs. One that gives `embedding` takes the place
            of neck and classifier.

    Raises:
        InputError: an unknown name, centres of no identities, weights that do not fit, or two heads
            with the same output.
    """
    for what, name, known in (
        ("pooling", pooling, POOLINGS),
        ("neck", neck, NECKS),
        ("classifier", classifier, CLASSIFIERS),
    ):
        if name not in known:
            raise InputError(f"{what} is one of {', '.join(known)}: received {name!r}")
    if num_identities is not None and num_identities < 1:
        raise InputError(f"num_identities is at least 1 or None: received {num_identities}")
    if centres and num_identities is None:
        raise InputError("centres belong to identities: received None, give num_identities")
    if min(image_size) < 1 or (width is not None and width < 1):
        raise InputError(f"sizes are at least 1: received image_size={image_size}, width={width}")

    images = keras.Input((*image_size, 3), dtype="uint8", name="images")
    pixels = keras.layers.Rescaling(1.0, dtype="float32", name="pixels")(images)
    maps = backbones.build(backbone, weights, image_size, last_stride)(pixels)
    x = POOLINGS[pooling](name="pool")(maps)
    if width is not None:
        x = keras.layers.Dense(width, use_bias=False, name="width")(x)
    features = keras.layers.Activation("linear", dtype="float32", name="features")(x)
    outputs = {"features": features, **_outputs_of(heads, maps, num_identities)}
    if "embedding" not in outputs:
        outputs["embedding"] = NECKS[neck](features)
        if num_identities is not None:
            outputs["logits"] = CLASSIFIERS[classifier](outputs["embedding"], num_identities)
    if centres and num_identities is not None:
        outputs["centres"] = Centres(num_identities, name="centres")(features)
    return keras.Model(images, outputs, name="embedder")


def _outputs_of(heads: Sequence[Head], maps: Any, num_identities: int | None) -> dict[str, Any]:
    """The outputs of all heads."""
    outputs: dict[str, Any] = {}
    for head in heads:
        more = head(maps, num_identities)
        if outputs.keys() & more.keys():
            raise InputError(
                f"each head has outputs of its own: received two with "
                f"{sorted(outputs.keys() & more.keys())}"
            )
        outputs |= more
    return outputs


def stripes(model: keras.Model, count: int | None = None, pooling: str = "max") -> keras.Model:
    """images → `embedding` `(b, d)` and `local` `(b, s, d)`: unit stripes of the feature map.

    The local features of AlignedReID++ (DMLI; Luo et al., Pattern Recognition 2019) for any model
    of `build`, without training: to be compared by `global_local` in `keras_reid.evaluation`. The
    weights are shared with the model.

    Args:
        model: of `build`.
        count: s; None takes one for each row of the feature map.
        pooling: `"max"` or `"avg"`, along a stripe.

    Raises:
        InputError: a model without the layer "pool", such as an ensemble; more stripes than rows.
    """
    try:
        maps = model.get_layer("pool").input
    except ValueError as error:
        raise InputError(
            "stripes are pooled from the feature map before the layer 'pool': received a model "
            "without one; make it with keras_reid.models.build, and of an ensemble take one member"
        ) from error
    local = StripePooling(count or maps.shape[1], pooling, name="stripes")(maps)
    local = keras.layers.UnitNormalization(dtype="float32", name="local")(local)
    outputs = {"embedding": model.output["embedding"], "local": local}
    return keras.Model(model.input, outputs, name=model.name)


def ensemble(members: Sequence[keras.Model]) -> keras.Model:
    """`embedding = [e_1/|e_1|, … e_K/|e_K|] / √K` `(b, Σ d)`: members side by side, of length 1.

    A squared distance is then the mean of the members' own. The weights are shared with them.

    Args:
        members: models of `build` for images of one size.

    Raises:
        InputError: no members, or images of different sizes.
    """
    shapes = {tuple(model.input_shape) for model in members}
    if len(shapes) != 1:
        raise InputError(
            f"an ensemble sees one image at a time: received {len(members)} members for the "
            f"shapes {sorted(shapes, key=str)}; give members of one image size"
        )
    images = keras.Input(shapes.pop()[1:], dtype="uint8", name="images")
    parts = [
        keras.layers.UnitNormalization(dtype="float32", name=f"unit{number}")(
            embedder(model, f"member{number}")(images)
        )
        for number, model in enumerate(members, start=1)
    ]
    joint = (
        keras.layers.Concatenate(name="joint", dtype="float32")(parts) if parts[1:] else parts[0]
    )
    scale = 1 / math.sqrt(len(parts))
    embedding = keras.layers.Rescaling(scale, dtype="float32", name="embedding")(joint)
    return keras.Model(images, {"embedding": embedding}, name="ensemble")


def embedder(model: keras.Model, name: str | None = None) -> keras.Model:
    """The part of a model that is needed at test time: images → `embedding` `(b, d)`."""
    return keras.Model(model.input, _output(model, "embedding"), name=name or model.name)


def _output(model: keras.Model, name: str) -> Any:
    outputs = getattr(model, "output", None)
    if not isinstance(outputs, dict) or name not in outputs:
        remedy = {
            "embedding": "make it with keras_reid.models.build",
            "local": "build it with heads=[keras_reid.heads.LocalHead()], or take "
            "keras_reid.models.stripes(model), which is --local=pooled",
        }
        raise InputError(
            f"an embedder has an output named {name!r}: received a model with "
            f"{sorted(outputs) if isinstance(outputs, dict) else 'unnamed'} outputs; {remedy[name]}"
        )
    return outputs[name]


def outputs_at_test(model: keras.Model, local: bool = False) -> keras.Model:
    """The part of a model that is needed at test time: images → `embedding`, and `local` if asked.

    Raises:
        InputError: a model without these outputs.
    """
    names = ("embedding", "local") if local else ("embedding",)
    return keras.Model(model.input, {name: _output(model, name) for name in names})


def unit_outputs(model: keras.Model, flip: bool = False) -> Callable[[Any], dict[str, Any]]:
    """uint8 images `(b, h, w, 3)` → each output `e(x) / |e(x)|` in float32, for graphs.

    Args:
        model: of `outputs_at_test`.
        flip: `e(x) + e(mirrored x)` instead of `e(x)`, which costs a second pass.
    """

    def unit(images: Any) -> dict[str, Any]:
        total = model(images, training=False)
        if flip:
            mirrored = model(images[:, :, ::-1], training=False)
            total = {name: total[name] + mirrored[name] for name in total}
        return {
            name: keras.ops.normalize(keras.ops.cast(output, "float32"), axis=-1)
            for name, output in total.items()
        }

    return unit


class Embedder:
    """L2-normalised float32 embeddings `(n, d)` of batches of uint8 images `(b, h, w, 3)`.

    Args:
        model: a model of `build`; later changes of its weights are seen.
        flip: see `unit_outputs`.
        local: yield the dict of `embedding` and `local`, both of length 1.

    Raises:
        InputError: a model without these outputs.
    """

    def __init__(self, model: keras.Model, flip: bool = False, local: bool = False) -> None:
        import tensorflow as tf

        self.image_size: tuple[int, int] = tuple(model.input_shape[1:3])
        images = tf.TensorSpec(model.input_shape, tf.uint8)
        self._local = local
        unit = unit_outputs(outputs_at_test(model, local), flip)
        self._step = tf.function(unit, input_signature=[images])

    def __call__(self, batches: Iterable[Any]) -> Any:
        """The embeddings of all batches, for example of `keras_reid.data.image_batches`.

        Returns:
            `(n, d)`, or with `local` the dict of `embedding` `(n, d)` and `local` `(n, s, c)`.
        """
        parts = [{k: v.numpy() for k, v in self._step(images).items()} for images in batches]
        return joined(parts, self._local)


def joined(parts: Sequence[Mapping[str, np.ndarray]], local: bool) -> Any:
    """The outputs of batches, by name, one after the other; the embeddings alone unless `local`.

    Raises:
        InputError: no batches.
    """
    if not parts:
        raise InputError("there must be at least one image to embed: received none")
    joint = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return joint if local else joint["embedding"]


def embed(model: keras.Model, batches: Iterable[Any], flip: bool = False) -> np.ndarray:
    """`Embedder(model, flip)(batches)`, for a single use."""
    return Embedder(model, flip)(batches)
