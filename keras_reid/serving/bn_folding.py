"""Networks for inference: batch normalization folded into convolutions, constant weights."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Convolution = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


class _Unchanged(keras.layers.Layer):
    """Identity with the arguments of the batch normalization that it replaces."""

    def call(self, x: Any, training: bool | None = None, mask: Any = None) -> Any:
        return x


def folded(net: keras.Model) -> keras.Model:
    """Return the network with batch normalizations folded into the convolutions before them.

    `γ (W∗x + b − μ) / σ + β = (γ/σ) W ∗ x + (b − μ) γ/σ + β` with `σ = √(variance + ε)`. A
    convolution is folded if it has a linear activation and the normalization alone reads it.
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
        if isinstance(layer, keras.layers.Layer):  # not an operation, such as a slice
            clones.append((layer, copy))
        return copy

    network = keras.models.clone_model(net, clone_function=clone)
    for layer, copy in clones:  # which have weights now
        norm = folds.get(layer)
        copy.set_weights(_weights(layer, norm) if norm else layer.get_weights())
    return network


def _foldable(net: keras.Model) -> Iterator[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """Yield pairs of a convolution and the batch normalization that follows it."""
    sources = {}
    readers = Counter(map(id, keras.tree.flatten(net.outputs)))
    for layer in net.operations:  # layers, and operations such as additions
        if isinstance(layer, keras.Model):
            yield from _foldable(layer)
        try:
            readers.update(map(id, keras.tree.flatten(layer.input)))
            if isinstance(layer, Convolution) and layer.activation is keras.activations.linear:
                sources[id(layer.output)] = layer
        except (AttributeError, ValueError):  # called more than once
            continue
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.axis in (-1, 3):
            source = sources.get(id(layer.input))
            if source is not None and readers[id(layer.input)] == 1:
                yield source, layer


def _weights(convolution: keras.layers.Layer, norm: keras.layers.Layer) -> list[np.ndarray]:
    """Return kernel and bias of a convolution with its normalization folded in."""
    kernel, *bias = (np.asarray(w, np.float64) for w in convolution.get_weights())
    *affine, mean, variance = (np.asarray(w, np.float64) for w in norm.get_weights())
    shift = affine.pop() if norm.center else 0.0
    gain = (affine.pop() if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
    scale = gain.reshape(kernel.shape[-2:]) if depthwise else gain
    return [kernel * scale, ((bias[0] if bias else 0.0) - mean) * gain + shift]


def constant(net: keras.Model) -> Callable[[Any], Any]:
    """Return the network as a function of its inputs, with weights as constants of the graph."""
    trainable = [v.numpy() for v in net.trainable_variables]
    others = [v.numpy() for v in net.non_trainable_variables]

    # A separate function: a graph that calls it twice contains the constants once.
    @tf.function(autograph=False)
    def call(images: Any, training: bool = False) -> Any:
        del training
        weights = ([tf.constant(v) for v in part] for part in (trainable, others))
        return net.stateless_call(*weights, images, training=False)[0]

    return call
