"""What models are used for: embeddings of images and tracklets, stripes, ensembles."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.layers import StripePooling
from keras_reid.skeletons import KEYPOINTS, skeleton_of


def feature_maps(model: keras.Model) -> keras.Model:
    """images → the maps `(b, h', w', c)` that are pooled, of a model of `build`.

    Raises:
        InputError: a model without the layer "pool", such as an ensemble.
    """
    try:
        return keras.Model(model.input, model.get_layer("pool").input, name=model.name)
    except ValueError as error:
        raise InputError(
            "the feature map is what the layer 'pool' takes: received a model without one; make it "
            "with keras_reid.models.build, and of an ensemble take one member"
        ) from error


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
    maps = feature_maps(model).output
    local = StripePooling(count or maps.shape[1], pooling, name="stripes")(maps)
    local = keras.layers.UnitNormalization(dtype="float32", name="local")(local)
    outputs = {"embedding": model.output["embedding"], "local": local}
    return keras.Model(model.input, outputs, name=model.name)


def ensemble(members: Sequence[keras.Model]) -> keras.Model:
    """`embedding = [e_1/|e_1|, … e_K/|e_K|] / √K` `(b, Σ d)`: members side by side, of length 1.

    A squared distance is then the mean of the members' own. The weights are shared with them.

    Args:
        members: models of `build` for images of one size, and the same points if any.

    Raises:
        InputError: no members, or inputs of different shapes.
    """
    shapes = {tuple(tuple(x.shape) for x in model.inputs) for model in members}
    if len(shapes) != 1:
        raise InputError(
            f"an ensemble sees one image at a time: received {len(members)} members for the "
            f"shapes {sorted(shapes, key=str)}; give members of one image size"
        )
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name), members[0].input
    )
    parts = [
        keras.layers.UnitNormalization(dtype="float32", name=f"unit{number}")(
            embedder(model, f"member{number}")(inputs)
        )
        for number, model in enumerate(members, start=1)
    ]
    joint = (
        keras.layers.Concatenate(name="joint", dtype="float32")(parts) if parts[1:] else parts[0]
    )
    scale = 1 / math.sqrt(len(parts))
    embedding = keras.layers.Rescaling(scale, dtype="float32", name="embedding")(joint)
    return keras.Model(inputs, {"embedding": embedding}, name="ensemble")


def embedder(model: keras.Model, name: str | None = None) -> keras.Model:
    """The part of a model that is needed at test time: images → `embedding` `(b, d)`."""
    model = _functional(model)
    return keras.Model(model.input, _output(model, "embedding"), name=name or model.name)


def _functional(model: keras.Model) -> keras.Model:
    """A sequential model as the functional one that it is."""
    if not isinstance(model, keras.Sequential) or not model.built:
        return model
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def _output(model: keras.Model, name: str) -> Any:
    outputs = getattr(model, "output", None)
    if name == "embedding" and isinstance(outputs, keras.KerasTensor) and len(outputs.shape) == 2:
        return outputs  # of a model that does nothing else
    if not isinstance(outputs, dict) or name not in outputs:
        remedy = {
            "embedding": "make it with keras_reid.models.build",
            "local": "build it with heads=[keras_reid.models.heads.LocalHead()], or take "
            "keras_reid.models.stripes(model)",
            "attribute_probabilities": "train one by the recipe attributes",
        }
        raise InputError(
            f"an embedder has an output named {name!r}, or one output (b, d) that is the "
            f"embedding: received a model with "
            f"{sorted(outputs) if isinstance(outputs, dict) else 'unnamed'} outputs; "
            + remedy.get(name, "train one by the recipe pose"),
            "local" if name == "local" else None,
        )
    return outputs[name]


def outputs_at_test(
    model: keras.Model, local: bool = False, also: Sequence[str] = ()
) -> keras.Model:
    """The part of a model that is needed at test time: inputs → `embedding`, and what is asked.

    Raises:
        InputError: a model without these outputs.
    """
    model = _functional(model)
    names = ("embedding", *(["local"] if local else []), *also)
    return keras.Model(model.input, {name: _output(model, name) for name in names})


DIRECTIONS = ("embedding", "local", "parts", "global")  # outputs of which the length is no matter


def unit_outputs(model: keras.Model, flip: bool = False) -> Callable[[Any], dict[str, Any]]:
    """uint8 images `(b, h, w, 3)`, or a dict of inputs → each output `e(x) / |e(x)|`, for graphs.

    What is no direction, visibility and probabilities, is the mean over both views with `flip`.

    Args:
        model: of `outputs_at_test`.
        flip: `e(x) + e(mirrored x)` instead of `e(x)`, which costs a second pass.
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
    """The inputs of a model mirrored left to right: images or clips, and keypoints with them."""
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
    """(height, width) of the images that a model was built for.

    Raises:
        InputError: it takes images of any size.
    """
    shape = next(tuple(x.shape) for x in model.inputs if len(x.shape) > 3)
    height, width = shape[-3:-1]
    if height is None or width is None:
        raise InputError(
            f"images are resized to the size that the model was built for: received a model for "
            f"{height}×{width} pixels; build it with a fixed image_size"
        )
    return height, width


class Embedder:
    """L2-normalized float32 embeddings `(n, d)` of batches of uint8 images `(b, h, w, 3)`.

    A model that takes uint8 also accepts other types that hold integers from 0 to 255.

    Args:
        model: a model of `build`, or any functional or sequential one that has a single output
            (b, d); later changes of its weights are seen.
        flip: see `unit_outputs`.
        local: yield the dict of `embedding` and `local`, both of length 1.
        also: further outputs in the dict, see `unit_outputs`.

    Raises:
        InputError: a model without these outputs.
    """

    def __init__(
        self,
        model: keras.Model,
        flip: bool = False,
        local: bool = False,
        also: Sequence[str] = (),
    ) -> None:
        import tensorflow as tf

        model = _functional(model)
        self.image_size = image_size(model)
        specs = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), model.input)
        self._dtypes = keras.tree.map_structure(lambda x: x.dtype, model.input)
        self._local = local or bool(also)
        unit = unit_outputs(outputs_at_test(model, local, also), flip)
        self._step = tf.function(unit, input_signature=[specs], autograph=False)
        self.takes_clips = takes_clips(model)

    def embed(
        self,
        images: Any,
        batch_size: int = 16,
        frames: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """The embeddings of images, or of tracklets: of each the mean over its clips.

        Args:
            images: n images: a path, a PIL image, a uint8 RGB array `(h, w, 3)` or
                `(b, h, w, 3)` of any size, or a list of these, which may be mixed; or
                `keras_reid.data.PersonImages`, with keypoints if the model takes them, and with a
                column "tracklet" any number, of n tracklets. All are turned upright by their Exif
                orientation and resized to `image_size`.
            batch_size: images at a time: of 16 the feature maps fit into the caches of a CPU.
            frames: of a clip, for a model of `build_tracklet`; any other embeds every image.
            progress: called with the number of images, or clips, done and of all.

        Returns:
            As a call, `(1, d)` for one image; of tracklets `(n, d)`, in the order of
            `images.per_tracklet()`.

        Raises:
            InputError: no images, a file that does not decode, pixels that uint8 does not hold, or
                images without the tracklets or keypoints that the model takes.
        """
        # Models run under every back end of Keras, and data are TensorFlow's.
        from keras_reid.data import PersonImages, clip_batches, image_batches

        if not isinstance(images, PersonImages):
            return self._embed_pixels(images, batch_size, progress)
        size, batch_size = self.image_size, min(batch_size, len(images))
        if not self.takes_clips:
            batches = image_batches(images, batch_size, size)
            each = self(_told(batches, len(images), progress))
            return tracklet_means(each, images.owner) if images.has_tracklets else each
        if not images.has_tracklets:
            raise InputError(
                "a model of tracklets embeds tracklets, not single images: received "
                f"{len(images)} images; give tracklets",
                "tracklets",
            )
        counts = -(-np.bincount(images.owner) // frames)
        batches = clip_batches(images, frames, max(1, batch_size // frames), size)
        clips = self(_told(batches, int(counts.sum()), progress))
        return tracklet_means(clips, np.repeat(np.arange(len(counts)), counts))

    def _embed_pixels(
        self, images: Any, batch_size: int, progress: Callable[[int, int], None] | None
    ) -> Any:
        """The embeddings of paths, PIL images and arrays."""
        from keras_reid.data.inputs import pixel_batches, single_images

        if isinstance(self._dtypes, Mapping):
            column = "tracklets" if self.takes_clips else ", ".join({*self._dtypes} - {"images"})
            raise InputError(
                f"`images` must be keras_reid.data.PersonImages with {column} for this model, got "
                f"{type(images).__name__}."
            )
        images = single_images(images)
        batches = pixel_batches(images, batch_size, self.image_size)
        return self(_told(batches, len(images), progress))

    def __call__(self, batches: Iterable[Any]) -> Any:
        """The embeddings of all batches, for example of `keras_reid.data.image_batches`.

        Returns:
            `(n, d)`, or with `local` or `also` the dict of `embedding` `(n, d)` and the others.

        Raises:
            InputError: no batches, or pixels that uint8 does not hold, such as floats from 0 to 1.
        """
        parts = [{k: v.numpy() for k, v in self._embed(inputs).items()} for inputs in batches]
        return joined(parts, self._local)

    def _embed(self, inputs: Any) -> dict[str, Any]:
        """Outputs of a batch, after a cast to the types of the model that keeps all values."""
        if not isinstance(inputs, Mapping):
            return self._step(_lossless(inputs, self._dtypes, "images"))
        types = self._dtypes if isinstance(self._dtypes, Mapping) else {}
        return self._step({k: _lossless(v, types.get(k), k) for k, v in inputs.items()})


def _lossless(values: Any, dtype: str | None, name: str) -> Any:
    """The values of an input in the type that a model takes.

    Raises:
        InputError: pixels that uint8 does not hold.
    """
    if dtype is None or getattr(getattr(values, "dtype", None), "name", None) == dtype:
        return values
    return checks.pixels(values, name) if dtype == "uint8" else keras.ops.cast(values, dtype)


def _told(
    batches: Iterable[Any], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[Any]:
    """The batches, of which it is told when each is done with."""
    done = 0
    for batch in batches:
        yield batch
        done += len(next(iter(batch.values())) if isinstance(batch, Mapping) else batch)
        if progress:
            progress(done, total)


def tracklet_means(embeddings: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """`e/|e|` (n, d) with e the mean of the embeddings (m, d) of each owner (m,) of 0 … n − 1."""
    total = np.zeros((owner.max() + 1, embeddings.shape[1]), np.float32)
    np.add.at(total, owner, embeddings)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


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


def takes_clips(model: keras.Model) -> bool:
    """Whether a model is one of tracklets."""
    return "clips" in input_names(model)


def input_names(model: keras.Model) -> set[str]:
    """What a model is called with: images alone, or the names of its inputs."""
    return set(model.input) if isinstance(model.input, dict) else {"images"}
