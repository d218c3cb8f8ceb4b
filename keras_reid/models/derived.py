"""Models derived from trained models: embedders, stripes, ensembles, feature maps."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_reid.errors import InputError, Shown, invalid
from keras_reid.layers import StripePooling
from keras_reid.skeletons import KEYPOINTS, skeleton_of


def feature_maps(model: keras.Model) -> keras.Model:
    """Return the part of a model from images to the pooled maps.

    Args:
        model: model of `build`, with a layer named "pool".

    Returns:
        Model of images `(b, h, w, 3)` → maps `(b, h', w', c)`, with the weights of `model`.

    Raises:
        InputError: the model has no layer "pool", as in an ensemble.

    Example:
        >>> from keras_reid import models
        >>> model = models.build("tiny", None, (64, 32), weights="none")
        >>> feature_maps(model).output_shape
        (None, 8, 4, 128)
    """
    try:
        return keras.Model(model.input, model.get_layer("pool").input, name=model.name)
    except ValueError as error:
        fix = "Build it with keras_reid.models.build. Of an ensemble, pass one member."
        raise invalid("model", "a model with a layer 'pool'", model.name, fix) from error


def stripes(model: keras.Model, count: int | None = None, pooling: str = "max") -> keras.Model:
    """Return a model: images → `embedding` `(b, d)`, and unit stripes `local` `(b, s, d)`.

    The local features of AlignedReID++ (DMLI; Luo et al., Pattern Recognition 2019) for any model
    of `build`, without training. `global_local` in `keras_reid.evaluation` compares them. The
    weights are shared with the model.

    Args:
        model: model of `build`.
        count: s; None: one for each row of the feature map.
        pooling: `"max"` or `"avg"`, along a stripe.

    Returns:
        Model of images `(b, h, w, 3)` → the dict of both outputs.

    Raises:
        InputError: the model has no layer "pool", as in an ensemble, or fewer rows than stripes.

    Example:
        >>> from keras_reid import models
        >>> model = models.build("tiny", None, (64, 32), weights="none")
        >>> {name: tuple(x.shape) for name, x in stripes(model, count=4).output.items()}
        {'embedding': (None, 128), 'local': (None, 4, 128)}
    """
    maps = feature_maps(model).output
    local = StripePooling(count or maps.shape[1], pooling, name="stripes")(maps)
    local = keras.layers.UnitNormalization(dtype="float32", name="local")(local)
    outputs = {"embedding": model.output["embedding"], "local": local}
    return keras.Model(model.input, outputs, name=model.name)


def ensemble(members: Sequence[keras.Model]) -> keras.Model:
    """`embedding = [e_1/|e_1|, … e_K/|e_K|] / √K` `(b, Σ d)`: members side by side, of length 1.

    A squared distance is then the mean of the squared distances of the members. The members share
    their weights with the result.

    Args:
        members: models of `build` for images of one size, and for the same points if they take any.

    Returns:
        Model of the inputs of a member → `{"embedding": (b, Σ d)}`.

    Raises:
        InputError: no members, or inputs of different shapes.

    Example:
        >>> import numpy as np
        >>> pixels = keras.Input((2,))
        >>> member = keras.Model(pixels, keras.layers.Identity()(pixels))
        >>> joint = ensemble([member, member])
        >>> print(np.round(joint(np.array([[3.0, 4.0]]))["embedding"], 2))
        [[0.42 0.57 0.42 0.57]]
    """
    shapes = {tuple(tuple(x.shape) for x in model.inputs) for model in members}
    if len(shapes) != 1:
        received = Shown(f"{len(members)} for the shapes {sorted(shapes, key=str)}")
        raise invalid("members", "models for one image size", received)
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name), members[0].input
    )
    parts = [
        keras.layers.UnitNormalization(dtype="float32", name=f"unit{number}")(
            embedder(model, f"member{number}")(inputs)
        )
        for number, model in enumerate(members, start=1)
    ]
    joint = keras.layers.Concatenate(name="joint", dtype="float32")(parts)
    scale = 1 / math.sqrt(len(parts))
    embedding = keras.layers.Rescaling(scale, dtype="float32", name="embedding")(joint)
    return keras.Model(inputs, {"embedding": embedding}, name="ensemble")


def embedder(model: keras.Model, name: str | None = None) -> keras.Model:
    """Return the part of a model for test time.

    Args:
        model: model with the output `embedding`, or with one output `(b, d)`.
        name: name of the returned model; None: that of `model`.

    Returns:
        Model of images `(b, h, w, 3)` → embeddings `(b, d)`, with the weights of `model`.

    Raises:
        InputError: the model has no embeddings.

    Example:
        >>> from keras_reid import models
        >>> model = models.build("tiny", 10, (64, 32), weights="none")
        >>> sorted(model.output), embedder(model).output_shape
        (['embedding', 'features', 'logits'], (None, 128))
    """
    model = _functional(model)
    return keras.Model(model.input, _output(model, "embedding"), name=name or model.name)


def _functional(model: keras.Model) -> keras.Model:
    """Return a sequential model as a functional one."""
    if not isinstance(model, keras.Sequential) or not model.built:
        return model
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def _output(model: keras.Model, name: str) -> Any:
    outputs = getattr(model, "output", None)
    if name == "embedding" and isinstance(outputs, keras.KerasTensor) and len(outputs.shape) == 2:
        return outputs  # the model is only an embedder
    if not isinstance(outputs, dict) or name not in outputs:
        fixes = {
            "embedding": "Build it with keras_reid.models.build.",
            "local": "Build it with heads=[keras_reid.models.heads.LocalHead()], or use "
            "keras_reid.models.stripes(model).",
            "attribute_probabilities": "Train one by the recipe attributes.",
        }
        names = sorted(outputs) if isinstance(outputs, dict) else "unnamed outputs"
        raise InputError(
            f"The model must have an output named {name!r}, got {names}. "
            + fixes.get(name, "Train one by the recipe pose."),
            "local" if name == "local" else None,
        )
    return outputs[name]


def outputs_at_test(model: keras.Model, outputs: Sequence[str] = ("embedding",)) -> keras.Model:
    """Return the part of a model that computes these outputs.

    Args:
        model: model with named outputs.
        outputs: names of outputs.

    Returns:
        Model of the same inputs → dict of outputs, with the weights of `model`.

    Raises:
        InputError: a model without these outputs.

    Example:
        >>> from keras_reid import models
        >>> model = models.build("tiny", 10, (64, 32), weights="none")
        >>> sorted(outputs_at_test(model, ["embedding", "logits"]).output)
        ['embedding', 'logits']
    """
    model = _functional(model)
    return keras.Model(model.input, {name: _output(model, name) for name in outputs})


DIRECTIONS = ("embedding", "local", "parts", "global")  # L2-normalized outputs


def unit_outputs(model: keras.Model, flip: bool = False) -> Callable[[Any], dict[str, Any]]:
    """Return a function, for graphs, from inputs to outputs by name.

    Embeddings are `e(x) / |e(x)|`. Visibility and probabilities are not normalized.

    Args:
        model: model of `outputs_at_test`.
        flip: use the mean of the outputs of image and mirrored image, with a second pass.

    Returns:
        Function of uint8 images `(b, h, w, 3)`, or of a dict of inputs → float32 outputs by name.

    Example:
        >>> import numpy as np
        >>> pixels = keras.Input((1, 2, 1))
        >>> model = keras.Model(pixels, {"embedding": keras.layers.Flatten()(pixels)})
        >>> image = np.array([3.0, 4.0]).reshape(1, 1, 2, 1)
        >>> print(np.array(unit_outputs(model)(image)["embedding"]))
        [[0.6 0.8]]
    """

    def unit(inputs: Any) -> dict[str, Any]:
        total = model(inputs, training=False)
        if flip:
            other = model(mirrored(inputs), training=False)
            total = {name: (total[name] + other[name]) / 2 for name in total}
        single = {name: keras.ops.cast(output, "float32") for name, output in total.items()}
        return {
            name: keras.ops.normalize(output, axis=-1) if name in DIRECTIONS else output
            for name, output in single.items()
        }

    return unit


def mirrored(inputs: Any) -> Any:
    """Mirror the inputs of a model left to right: images or clips, and keypoints.

    Args:
        inputs: images `(b, h, w, 3)`, or a dict of `images` or `clips` `(b, t, h, w, 3)`, and
            `keypoints` `(b, k, 3)` as x, y (fractions of the image) and confidence.

    Returns:
        The same structure.

    Example:
        >>> import numpy as np
        >>> image = np.array([1, 2, 3]).reshape(1, 1, 3, 1)
        >>> mirrored(image).ravel().tolist()
        [3, 2, 1]
    """
    if not isinstance(inputs, Mapping):
        return inputs[..., ::-1, :]
    other = dict(inputs)
    for name in ("images", "clips"):
        if name in inputs:
            other[name] = inputs[name][..., ::-1, :]
    if KEYPOINTS in inputs:
        points = inputs[KEYPOINTS]
        swapped = keras.ops.take(points, skeleton_of(points).mirror, axis=1)
        x, rest = swapped[..., :1], swapped[..., 1:]
        other[KEYPOINTS] = keras.ops.concatenate([1 - x, rest], axis=-1)
    return other


def image_size(model: keras.Model) -> tuple[int, int]:
    """Return (height, width), in pixels, of the images that a model was built for.

    Args:
        model: model of images or clips.

    Raises:
        InputError: the model accepts images of any size.

    Example:
        >>> model = keras.Sequential([keras.Input((256, 128, 3)), keras.layers.Flatten()])
        >>> image_size(model)
        (256, 128)
    """
    shape = next(tuple(x.shape) for x in model.inputs if len(x.shape) > 3)
    height, width = shape[-3:-1]
    if height is None or width is None:
        received = Shown(f"{height}×{width} pixels")
        raise invalid("model", "a model for a fixed image size", received)
    return height, width


def takes_clips(model: keras.Model) -> bool:
    """Return True for a model of tracklets.

    Args:
        model: model of images or clips.

    Example:
        >>> clips = keras.Input((None, 64, 32, 3), name="clips")
        >>> takes_clips(keras.Model({"clips": clips}, keras.ops.mean(clips, axis=1)))
        True
    """
    return "clips" in input_names(model)


def input_names(model: keras.Model) -> set[str]:
    """Return the names of the inputs of a model; `{"images"}` for a single unnamed input.

    Args:
        model: functional model.

    Example:
        >>> pixels = keras.Input((256, 128, 3))
        >>> input_names(keras.Model(pixels, keras.layers.Flatten()(pixels)))
        {'images'}
    """
    return set(model.input) if isinstance(model.input, dict) else {"images"}
