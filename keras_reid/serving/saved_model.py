"""SavedModel with two signatures, and warm-up requests for TensorFlow Serving."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from keras_reid.data.synthetic import draw
from keras_reid.pixels import graph_resize
from keras_reid.serving.portable_decoding import graph_decode_portable

WARM_BATCHES = (1, 8)  # images per request
DECODERS = 10  # files decoded in parallel


def write(unit: Callable[[Any], dict[str, Any]], size: tuple[int, int], folder: Path) -> None:
    """Write the network `unit`, uint8 `(b, h, w, 3)` → outputs, as the SavedModel `folder`.

    `serving_bytes` returns rows of NaN for files that it does not decode.
    """
    pixels = tf.TensorSpec((*size, 3), tf.uint8)

    # One function for both signatures, so that its constants are stored once.
    @tf.function(input_signature=[tf.TensorSpec((None, *size, 3), tf.uint8)])
    def embedding(images: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(images)[0]
        # Fused convolutions fail on an empty batch. Add a black image and drop its output.
        images = tf.pad(images, [(0, tf.cast(count == 0, tf.int32)), (0, 0), (0, 0), (0, 0)])
        return {name: output[:count] for name, output in unit(images).items()}

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return embedding(
            tf.map_fn(lambda image: graph_resize(image, size), images, fn_output_signature=pixels)
        )

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serving_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.size(image_bytes, tf.int64)
        rows, images = _decoded(image_bytes, size)
        return {
            name: tf.tensor_scatter_nd_update(
                tf.fill([count, *output.shape[1:]], math.nan), rows[:, None], output
            )
            for name, output in embedding(images).items()
        }

    signatures = {"serving_default": serving_default, "serving_bytes": serving_bytes}
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)


def _decoded(files: tf.Tensor, size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the row numbers (k,) and uint8 images (k, h, w, 3) of the files that decode."""
    with tf.init_scope():
        black = tf.io.encode_jpeg(tf.zeros((*size, 3), tf.uint8)).numpy()
    # The last file always decodes, since a batch cannot be taken from an empty data set.
    files = tf.concat([files, [black]], 0)
    count = tf.size(files, tf.int64)

    @tf.autograph.experimental.do_not_convert
    def decode(row: tf.Tensor, file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return row, graph_resize(graph_decode_portable(file), size)

    def decoded(decoders: int | None) -> tuple[tf.Tensor, tf.Tensor]:
        # An operation that fails ends its graph. Only a data set skips the elements that fail.
        rows = tf.data.Dataset.from_tensor_slices((tf.range(count), files))
        images = rows.map(decode, num_parallel_calls=decoders).ignore_errors()
        return images.batch(count).get_single_element()

    # Threads for a single file would cost more time than they save.
    rows, images = tf.cond(count > 2, lambda: decoded(DECODERS), lambda: decoded(None))
    return rows[:-1], images[:-1]


def warm_up(folder: Path, size: tuple[int, int], name: str) -> None:
    """Write the requests that TensorFlow Serving runs before it announces a version.

    They contain synthetic pedestrians, not pictures of persons.
    """
    images = np.stack([draw(person, camera=1, instance=0, size=size) for person in (0, 1)])
    files = [tf.io.encode_jpeg(image).numpy() for image in images]
    inputs = []
    for count in WARM_BATCHES:
        chosen = np.arange(count) % len(images)
        inputs.append(("serving_default", {"images": images[chosen]}))
        inputs.append(("serving_bytes", {"image_bytes": np.array(files, object)[chosen]}))
    write_requests(folder, name, inputs)


def write_requests(
    folder: Path, name: str, inputs: list[tuple[str, dict[str, np.ndarray]]]
) -> None:
    """Write warm-up requests if the package of TensorFlow Serving is installed."""
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        logging.warning(
            "No warm-up requests are written. They need pip install '.[serving]' in the checkout."
        )
        return
    extra = folder / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for signature, arrays in inputs:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            for key, array in arrays.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(array))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
