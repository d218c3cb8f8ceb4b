"""Pair verification: one network that looks at two images at once and says how far apart they are.

The alternative to an embedding. The two maps of a pair are compared in the middle of the network,
so the network can look for what the images have in common; but there is no vector of one image.
"""

from collections.abc import Iterator

import keras
import numpy as np

from keras_reid.errors import InputError
from keras_reid.layers import MatchingGate, PairDistance
from keras_reid.models import backbones
from keras_reid.models.stem import check, pixels, pooled


def build_pair_verifier(
    backbone: str,
    image_size: tuple[int, int] = (256, 128),
    *,
    weights: str = "imagenet",
    gate: str | None = None,
    pooling: str = "avg",
    last_stride: int = 1,
    width: int | None = None,
) -> keras.Model:
    """uint8 images `[(b, h, w, 3), (b, h, w, 3)]` → `{"distance": (b,)}`, in [0, 2].

    The gated Siamese network (Varior et al., ECCV 2016, arXiv:1607.08378): both images go
    through the same weights up to the gate, which raises in each map what the other has too (see
    `keras_reid.layers.MatchingGate`), and on through the same weights to a feature each. The
    result is the Euclidean distance of the two features at length 1. Exchanging the images
    changes nothing, in training neither: both halves are one batch to every layer.

    Train it with `keras_reid.losses.ContrastiveLoss(pairs="given")` on
    `keras_reid.data.pair_batches`.

    The drawback: the feature of an image depends on the image it is compared with, so there is
    no embedding that could be stored or searched. q queries against g gallery images take q·g
    passes through the network behind the gate, see `pair_distances`.

    Args:
        backbone: a name or a file, see `keras_reid.models.backbones.build`.
        image_size: (height, width) in pixels.
        weights: `"imagenet"`, `"none"` or a `.weights.h5` file of the backbone.
        gate: name of the backbone's layer behind which the maps are compared; every path through
            the backbone must run through it. None takes the one nearest the middle.
        pooling: `"avg"`, `"max"` or `"gem"` (generalized mean).
        last_stride: 1 keeps a feature map of twice the height and width, 2 is as published.
        width: width of the feature; None keeps the backbone's own.

    Raises:
        InputError: an unknown name, a layer that paths run around, or weights that do not fit.
    """
    check(image_size, width, pooling=pooling)
    before, after = split(backbones.build(backbone, weights, image_size, last_stride), gate)

    images = keras.Input((*image_size, 3), dtype="uint8", name="images")
    head = keras.Model(images, before(pixels(images)), name="head")

    gated = keras.Input(head.output_shape[1:], name="gated")
    tail = keras.Model(gated, pooled(after(gated), pooling, width), name="tail")

    pair = [keras.Input((*image_size, 3), dtype="uint8", name=name) for name in ("first", "second")]
    # One batch of both: every layer runs once, and batch normalization sees the same statistics
    # whichever image comes first.
    maps = keras.ops.split(head(keras.ops.concatenate(pair)), 2)
    gated_maps = keras.ops.concatenate(MatchingGate(name="gate")(maps))
    features = keras.ops.split(tail(gated_maps), 2)
    distance = PairDistance(name="distance")(*features)
    return keras.Model(pair, {"distance": distance}, name="pair_verifier")


def split(model: keras.Model, layer: str | None = None) -> tuple[keras.Model, keras.Model]:
    """Two models, before and behind a layer's map, that one after the other are the model.

    Args:
        model: a functional model with one output; where its last layer is itself a model, the
            cut goes through that one.
        layer: name of a layer through which every path runs; None takes the one nearest the
            middle of the list of layers.

    Returns:
        Models that share their weights with `model`.

    Raises:
        InputError: if no such layer is there, or paths run around it.
    """
    inner = model.layers[-1]
    if isinstance(inner, keras.Model):
        first, behind = split(inner, layer)
        before = keras.models.clone_model(
            model, clone_function=lambda part: first if part is inner else part
        )
        return before, behind
    cuts = {part.name: part for part in _cuts(model)}
    if layer is None and cuts:
        middle = (len(model.layers) - 1) / 2
        layer = min(cuts, key=lambda name: abs(model.layers.index(cuts[name]) - middle))
    if layer not in cuts:
        raise InputError(
            "a gate stands behind a layer through which every path runs, one of "
            f"{', '.join(cuts)}: received {layer!r}"
        )
    at = cuts[layer].output
    before = keras.Model(model.input, at, name="before_gate")
    return before, keras.Model(at, model.output, name="behind_gate")


def _cuts(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers that yield a map, so that nothing made before them is used behind them."""
    operations = model.operations  # in an order in which they can be run
    last_use = {
        id(tensor): place
        for place, operation in enumerate(operations)
        for tensor in keras.tree.flatten(operation.input)
    }
    whole = keras.layers.InputLayer | keras.Model
    needed_until = 0  # what was made so far
    for place, operation in enumerate(operations[:-1]):
        layer = isinstance(operation, keras.layers.Layer) and not isinstance(operation, whole)
        made = keras.tree.flatten(operation.output)
        if layer and needed_until <= place and len(made[0].shape) == 4:
            yield operation
        needed_until = max(needed_until, *(last_use.get(id(tensor), 0) for tensor in made))


def pair_distances(
    model: keras.Model, query: np.ndarray, gallery: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """The distance of every query to every gallery image, float32 `(q, g)`: small sets only.

    The part before the gate runs q + g times, the part behind it q·g times for both images; all
    q + g maps at the gate are kept in memory.

    Args:
        model: a model of `build_pair_verifier`.
        query: uint8 images `(q, h, w, 3)`.
        gallery: uint8 images `(g, h, w, 3)`.
        batch_size: images, or pairs, in a pass.

    Raises:
        InputError: if the model is another one.
    """
    names = {layer.name for layer in model.layers}
    if not {"head", "gate", "tail", "distance"} <= names:
        raise InputError(
            f"pairs are compared by a pair verifier: received the model {model.name!r}; make it "
            "with keras_reid.models.build_pair_verifier"
        )
    head, gate, tail, distance = map(model.get_layer, ("head", "gate", "tail", "distance"))
    maps = [head.predict(images, batch_size, verbose=0) for images in (query, gallery)]
    pair = [keras.Input(head.output.shape[1:], dtype=head.output.dtype) for _ in maps]
    behind = keras.Model(pair, distance(*map(tail, gate(pair))))
    found = []
    total = len(query) * len(gallery)
    for part in np.array_split(np.arange(total), range(batch_size, total, batch_size)):
        row, column = np.divmod(part, len(gallery))
        found.append(behind.predict_on_batch([maps[0][row], maps[1][column]]))
    return np.concatenate(found).reshape(len(query), len(gallery))
