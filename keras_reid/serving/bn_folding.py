"""A network for inference: batch normalization inside the convolutions, weights as constants."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Convolution = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


class _Unchanged(keras.layers.Layer):
    """Stands where a normalization stood, and takes the arguments it took."""

    def call(self, x: Any, training: bool | None = None, mask: Any = None) -> Any:
        return x


def folded(net: keras.Model) -> keras.Model:
    """The same network, without the batch normalizations that follow a convolution.

    `γ (W∗x + b − μ) / σ + β = (γ/σ) W ∗ x + (b − μ) γ/σ + β` with `σ = √(variance + ε)`. A
    convolution is folded if it has no activation and nothing else reads what it puts out.
    """
    folds = dict(_foldable(net))
    norms = {id(norm): norm for norm in folds.values()}
    clones: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=clone)
        if id(layer) in norms:
            return _Unchanged(name=layer.name)
        config = layer.get_config()
        if layer in folds:
            config["use_bias"] = True
        copy = type(layer).from_config(config)
        if isinstance(layer, keras.layers.Layer):  # and not a mere operation, such as a slice
            clones.append((layer, copy))
        return copy

    copied = keras.models.clone_model(net, clone_function=clone)
    for layer, copy in clones:
        values = layer.get_weights()
        if layer in folds:
            values = _weights(layer, folds[layer])
        copy.set_weights(values)
    return copied


def _foldable(net: keras.Model) -> Iterator[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """Each convolution that a batch normalization follows, and this."""
    made = {}
    readers: dict[int, int] = {}
    for layer in net.operations:  # its layers, and additions and the like
        if isinstance(layer, keras.Model):
            yield from _foldable(layer)
        try:
            for tensor in keras.tree.flatten(layer.input):
                readers[id(tensor)] = readers.get(id(tensor), 0) + 1
            if isinstance(layer, Convolution):
                made[id(layer.output)] = layer
        except (AttributeError, ValueError):  # called more than once
            continue
    for tensor in keras.tree.flatten(net.outputs):
        readers[id(tensor)] = readers.get(id(tensor), 0) + 1
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            source = made.get(id(layer.input))
            plain = source is not None and source.activation is keras.activations.linear
            if plain and layer.axis in (-1, 3) and readers[id(layer.input)] == 1:
                yield source, layer


def _weights(convolution: keras.layers.Layer, norm: keras.layers.Layer) -> list[np.ndarray]:
    """Kernel and bias of the convolution with the normalization behind it."""
    kernel, *bias = (np.asarray(w, np.float64) for w in convolution.get_weights())
    mean, variance = (
        keras.ops.convert_to_numpy(v).astype(np.float64)
        for v in (norm.moving_mean, norm.moving_variance)
    )
    gain = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        gain = gain * keras.ops.convert_to_numpy(norm.gamma)
    shift = keras.ops.convert_to_numpy(norm.beta) if norm.center else 0.0
    depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
    scale = gain.reshape(kernel.shape[-2:]) if depthwise else gain
    return [kernel * scale, ((bias[0] if bias else 0.0) - mean) * gain + shift]


def constant(net: keras.Model) -> Callable[[Any], Any]:
    """The network as a function of images alone: its weights become constants of the graph."""
    trainable = [v.numpy() for v in net.trainable_variables]
    others = [v.numpy() for v in net.non_trainable_variables]

    # A function of its own, so that a graph that calls it twice holds the constants once.
    @tf.function(autograph=False)
    def call(images: Any, training: bool = False) -> Any:
        del training
        weights = ([tf.constant(v) for v in part] for part in (trainable, others))
        return net.stateless_call(*weights, images, training=False)[0]

    return call
