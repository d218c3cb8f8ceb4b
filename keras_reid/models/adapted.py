"""Backbone copies for re-identification: last stride, fused batch normalization, styles."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_reid import checks
from keras_reid.errors import invalid
from keras_reid.io import channels_last
from keras_reid.layers import FusedBatchNormalization, MixStyle


def adapt(
    model: keras.Model,
    image_size: tuple[int, int],
    last_stride: int,
    mixstyle: float = 0.0,
    instance_norm: float = 0.0,
) -> keras.Model:
    """Copy a backbone with fused batch normalization, the last stride and style layers."""
    checks.one_of((1, 2), last_stride=last_stride)
    unstrided = _last_strided(model, image_size) if last_stride == 1 else {}
    ends = _ends_of_stages(model, image_size) if mixstyle or instance_norm else set()

    def layer_of(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.Lambda):
            return layer  # has no weights, and its function is not in the config
        config = {**layer.get_config(), **unstrided.get(layer.name, {})}
        if type(layer) is keras.layers.BatchNormalization:
            return FusedBatchNormalization.from_config(config)
        return type(layer).from_config(config)

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        x = layer(*args, **kwargs)
        if layer.name not in ends:
            return x
        if mixstyle:
            x = MixStyle(mixstyle, name=f"{layer.name}_mixstyle")(x)
        return _instance_norm(x, instance_norm, layer.name) if instance_norm else x

    copy = keras.models.clone_model(
        model, clone_function=layer_of, call_function=call if ends else None, recursive=True
    )
    _copy_weights(model, copy)
    return channels_last(copy)


def _instance_norm(maps: Any, share: float, name: str) -> Any:
    """Normalize the first channels of maps `(b, h, w, c)`: this fraction of all channels."""
    channels = maps.shape[-1]
    count = max(1, round(share * channels))
    # As many groups as channels.
    norm = keras.layers.GroupNormalization(-1, name=f"{name}_instance_norm")
    if count == channels:
        return norm(maps)
    joined = keras.layers.Concatenate(name=f"{name}_styles")
    return joined([norm(maps[..., :count]), maps[..., count:]])


def _copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy the weights of all layers to the layers of the same names."""
    for layer in source.layers:
        if isinstance(layer, keras.Model):
            _copy_weights(layer, target.get_layer(layer.name))
        elif layer.weights:
            target.get_layer(layer.name).set_weights(layer.get_weights())


def _ends_of_stages(model: keras.Model, image_size: tuple[int, int]) -> set[str]:
    """Return the last layers of the stages with maps of a quarter and an eighth of the image."""
    inner, layers = _strided(model)
    ends = set()
    for layer in layers:
        source = _producer(inner.layers, layer.input)
        if source is not None and _pads(source):
            source = _producer(inner.layers, source.input)
        if source is None:
            continue
        shape = source.output.shape
        probe = keras.Model(inner.inputs, source.output).compute_output_shape
        height = shape[1] or probe((1, *image_size, 3))[1]
        if round(image_size[0] / height) in (4, 8):
            ends.add(source.name)
    if not ends:
        rule = "a network that halves a map with a quarter or an eighth of the image size"
        fix = "Set mixstyle and instance_norm to 0."
        raise invalid("backbone", rule, model.name, fix)
    return ends


def _producer(layers: Iterable[keras.layers.Layer], tensor: Any) -> keras.layers.Layer | None:
    """Return the layer that produces a symbolic tensor."""
    return next((layer for layer in layers if layer.output is tensor), None)


def _last_strided(model: keras.Model, image_size: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Return changes of configuration by layer name that undo the last halving of the map."""
    inner, layers = _strided(model)
    if not layers:
        return {}
    probe = keras.Model(inner.inputs, [layer.output for layer in layers])
    shapes = probe.compute_output_shape((1, *image_size, 3))
    heights = [shape[1] for shape in (shapes if isinstance(shapes, list) else [shapes])]
    last = [layer for layer, height in zip(layers, heights, strict=True) if height == min(heights)]
    changes: dict[str, dict[str, Any]] = {layer.name: {"strides": (1, 1)} for layer in last}
    for layer in last:
        pad = _producer(filter(_pads, inner.layers), layer.input)
        if pad is not None:  # uneven padding is for the stride that is removed
            rows, columns = (size // 2 for size in layer.kernel_size)
            changes[pad.name] = {"padding": ((rows, rows), (columns, columns))}
    return changes


def _strided(model: keras.Model) -> tuple[keras.Model, list[keras.layers.Layer]]:
    """Return the innermost functional model with strided layers, and these layers."""
    layers = [layer for layer in model.layers if _stride(layer) > 1]
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return (model, layers) if layers or not nested else _strided(nested[-1])


def _stride(layer: keras.layers.Layer) -> int:
    strides = getattr(layer, "strides", 1)
    return max(strides) if isinstance(strides, list | tuple) else int(strides)


def _pads(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.ZeroPadding2D)
