"""Pair verification: one network that compares two images and returns their distance.

The feature maps of both images are compared in the middle of the network. The network finds
features that both images share, but one image alone has no embedding.
"""

from collections.abc import Iterator

import keras
import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.layers import MatchingGate, PairDistance
from keras_reid.models import backbones
from keras_reid.models.reid_model import ReidModel
from keras_reid.models.stem import check, pixels, pooled

PARTS = ("head", "gate", "tail", "distance")  # layers of a pair verifier


# The keyword arguments are the options of a model.
def build_pair_verifier(
    backbone: str,
    image_size: tuple[int, int] = (256, 128),
    *,
    gate: str | None = None,
    weights: str = "imagenet",
    pooling: str = "avg",
    last_stride: int = 1,
    width: int | None = None,
    mixstyle: float = 0.0,
    instance_norm: float = 0.0,
) -> keras.Model:
    """uint8 images `[(b, h, w, 3), (b, h, w, 3)]` → `{"distance": (b,)}`, in [0, 2].

    The gated Siamese network (Varior et al., ECCV 2016, arXiv:1607.08378). Both images go
    through the same weights up to the gate, which amplifies the common features of the two maps
    (see `keras_reid.layers.MatchingGate`), and through the same weights after it. The distance is
    the Euclidean distance of the two L2-normalized features. It is symmetric, also in training:
    both halves are one batch to every layer.

    Train it with the recipe `pair_verifier`, or with
    `keras_reid.losses.ContrastiveLoss(pairs="given")` on `keras_reid.data.pair_batches`.

    The feature of an image depends on the other image, so no embedding can be stored or searched.
    q queries against g gallery images take q·g passes through the network after the gate, see
    `pair_distances`.

    Args:
        backbone: a name or a file, see `keras_reid.models.backbones.build`.
        image_size: (height, width) in pixels.
        gate: name of the layer of the backbone with the compared maps; every path through the
            backbone must run through this layer. None: such a layer nearest to the middle.
        weights: `"imagenet"`, `"none"` or a `.weights.h5` file of the backbone.
        pooling: `"avg"`, `"max"`, `"avg_max"` or `"gem"`, as in `models.build`.
        last_stride: 1 keeps a feature map of twice the height and width, 2 is as published.
        width: size of the compared feature; None keeps the size of the backbone.
        mixstyle: probability that the styles of a training batch are mixed, in [0, 1].
        instance_norm: fraction of the channels with instance normalization, in [0, 1].

    Returns:
        A `ReidModel` with the output `distance`.

    Raises:
        InputError: an unknown name, a layer that a path bypasses, or weights that do not fit.

    Example:
        >>> model = build_pair_verifier("tiny", (64, 32), weights="none")
        >>> [tuple(images.shape) for images in model.input], tuple(model.output["distance"].shape)
        ([(None, 64, 32, 3), (None, 64, 32, 3)], (None,))
    """
    check(image_size, width, pooling=pooling)
    trunk = backbones.build(backbone, weights, image_size, last_stride, mixstyle, instance_norm)
    before, after = split(trunk, gate)

    images = keras.Input((*image_size, 3), dtype="uint8", name="images")
    head = keras.Model(images, before(pixels(images)), name="head")

    gated = keras.Input(head.output_shape[1:], name="gated")
    tail = keras.Model(gated, pooled(after(gated), pooling, width), name="tail")

    pair = [keras.Input((*image_size, 3), dtype="uint8", name=name) for name in ("first", "second")]
    # One batch of both: batch normalization sees the same statistics in either order.
    maps = keras.ops.split(head(keras.ops.concatenate(pair)), 2)
    gated_maps = keras.ops.concatenate(MatchingGate(name="gate")(maps))
    features = keras.ops.split(tail(gated_maps), 2)
    distance = PairDistance(name="distance")(*features)
    return ReidModel(pair, {"distance": distance}, name="pair_verifier")


def is_pair_verifier(model: keras.Model) -> bool:
    """Return True for a model of `build_pair_verifier`.

    Args:
        model: any model with layers.

    Example:
        >>> from keras_reid import models
        >>> is_pair_verifier(models.build("tiny", None, (64, 32), weights="none"))
        False
    """
    return {*PARTS} <= {layer.name for layer in model.layers}


def no_embeddings(source: object) -> InputError:
    """Return the error of a pair verifier where an embedder is required.

    Args:
        source: path or name of the model.

    Example:
        >>> print(str(no_embeddings("runs/pairs")).partition(". ")[0])
        `model` must be an embedder, got the pair verifier runs/pairs
    """
    received = Shown(f"the pair verifier {source}")
    fix = "It compares two images and has no embeddings. Only keras-reid search verify accepts it."
    return invalid("model", "an embedder", received, fix)


def split(model: keras.Model, layer: str | None = None) -> tuple[keras.Model, keras.Model]:
    """Cut a model in two: from the input to the map of a layer, and from the map to the output.

    Args:
        model: a functional model with one output. If its last layer is itself a model, the last
            layer is cut.
        layer: name of a layer through which every path runs; None: such a layer nearest to the
            middle of the list of layers.

    Returns:
        Models that share their weights with `model`.

    Raises:
        InputError: an unknown layer, or one that a path bypasses.
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
    checks.one_of(cuts, "Every path runs through these.", gate=layer)
    at = cuts[layer].output
    before = keras.Model(model.input, at, name="before_gate")
    return before, keras.Model(at, model.output, name="behind_gate")


def _cuts(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers with a map such that later layers use no earlier tensor."""
    operations = model.operations  # in topological order
    last_use = {
        id(tensor): place
        for place, operation in enumerate(operations)
        for tensor in keras.tree.flatten(operation.input)
    }
    whole = keras.layers.InputLayer | keras.Model
    needed_until = 0  # last use of all tensors so far
    for place, operation in enumerate(operations[:-1]):
        layer = isinstance(operation, keras.layers.Layer) and not isinstance(operation, whole)
        outputs = keras.tree.flatten(operation.output)
        if layer and needed_until <= place and len(outputs[0].shape) == 4:
            yield operation
        needed_until = max(needed_until, *(last_use.get(id(tensor), 0) for tensor in outputs))


def halves(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Return two models: the part of a pair verifier before the gate, and the rest.

    The first takes uint8 images (b, h, w, 3), the second takes two of its outputs and returns the
    distances (b,).
    """
    head, gate, tail, distance = map(model.get_layer, PARTS)
    pair = [keras.Input(head.output.shape[1:], dtype=head.output.dtype) for _ in range(2)]
    return head, keras.Model(pair, distance(*map(tail, gate(pair))))


def pair_distances(
    model: keras.Model, query: np.ndarray, gallery: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """Return the distances of all queries to all gallery images, float32 `(q, g)`.

    The part before the gate runs q + g times, the part after it q·g times for both images. All
    q + g maps at the gate are kept in memory.

    Args:
        model: a model of `build_pair_verifier`.
        query: uint8 images `(q, h, w, 3)`.
        gallery: uint8 images `(g, h, w, 3)`.
        batch_size: images, or pairs, in a pass.

    Raises:
        InputError: the model is not a pair verifier.

    Example:
        >>> from keras_reid import models
        >>> model = models.build_pair_verifier("tiny", (64, 32), weights="none")  # not trained.
        >>> images = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), "uint8")
        >>> apart = pair_distances(model, images[:1], images)
        >>> apart.shape, bool(apart[0, 0] < 1e-3)
        ((1, 3), True)
    """
    if not is_pair_verifier(model):
        fix = "Build one with keras_reid.models.build_pair_verifier."
        raise invalid("model", "a pair verifier", Shown(f"the model {model.name}"), fix)
    head, compare = halves(model)
    maps = [head.predict(images, batch_size, verbose=0) for images in (query, gallery)]
    parts = []
    total = len(query) * len(gallery)
    for rows in np.array_split(np.arange(total), range(batch_size, total, batch_size)):
        row, column = np.divmod(rows, len(gallery))
        parts.append(compare.predict_on_batch([maps[0][row], maps[1][column]]))
    return np.concatenate(parts).reshape(len(query), len(gallery))
