"""Backbones: networks by name or from a file, from pixels to a feature map.

Every backbone takes float RGB pixels 0..255 `(b, h, w, 3)`, normalizes them as its weights require,
and returns `(b, h', w', d)`.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_reid import checks
from keras_reid.errors import InputError, Shown, first_line, invalid
from keras_reid.io import channels_last, read_model
from keras_reid.layers import FusedBatchNormalization, MixStyle
from keras_reid.models import shipped
from keras_reid.models.registry import BACKBONES
from keras_reid.models.shipped import PREFIX
from keras_reid.names import expanded

Shape = tuple[int, int, int]


def resnet50(weights: str | None, shape: Shape) -> keras.Model:
    """ResNet-50 (He et al., CVPR 2016)."""
    pixels = keras.Input(shape)
    # ImageNet's mean in the order blue, green, red, as the published weights were trained.
    x = keras.layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68], name="bgr_mean")(
        pixels[..., ::-1]
    )
    net = keras.applications.ResNet50(include_top=False, weights=weights, input_shape=shape)
    return keras.Model(pixels, net(x), name="resnet50")


def mobilenetv2(weights: str | None, shape: Shape) -> keras.Model:
    """MobileNetV2 (Sandler et al., CVPR 2018)."""
    pixels = keras.Input(shape)
    x = keras.layers.Rescaling(1.0 / 127.5, offset=-1.0, name="unit_range")(pixels)
    net = keras.applications.MobileNetV2(include_top=False, weights=weights, input_shape=shape)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.99  # 0.999, as published, forgets ImageNet in some thousand steps
    return keras.Model(pixels, net(x), name="mobilenetv2")


def efficientnetv2_b0(weights: str | None, shape: Shape) -> keras.Model:
    """EfficientNetV2-B0 (Tan and Le, ICML 2021)."""
    return keras.applications.EfficientNetV2B0(
        include_top=False, weights=weights, input_shape=shape, include_preprocessing=True
    )


def tiny(weights: str | None, shape: Shape) -> keras.Model:
    """Four 3×3 convolutions with batch normalization: trains from scratch in a minute on a CPU."""
    if weights is not None:
        fix = "The backbone tiny has no published weights."
        raise invalid("weights", "'none' or a .weights.h5 file", weights, fix)
    pixels = keras.Input(shape)
    x = keras.layers.Rescaling(1.0 / 127.5, offset=-1.0)(pixels)
    for width in (32, 64, 96, 128):
        x = keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
    return keras.Model(pixels, x, name="tiny")


@contextmanager
def channels_last_setting() -> Iterator[None]:
    """Set the layout (b, h, w, c) within the block: `keras.applications` reads the setting."""
    setting = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(setting)


@channels_last_setting()
def build(
    name: str,
    weights: str = "imagenet",
    image_size: tuple[int, int] = (256, 128),
    last_stride: int = 1,
    mixstyle: float = 0.0,
    instance_norm: float = 0.0,
) -> keras.Model:
    """Build a backbone for training.

    Args:
        name: one of `BACKBONES`; `pretrained:NAME` for that of a model of
            `keras_reid.models.PRETRAINED`; `keras_cv:PRESET` for a backbone of KerasCV with its
            rescaling inside; or the path of a functional model saved as `.keras` that
            takes float pixels 0..255.
        weights: `"imagenet"`, `"none"`, or the path of a matching `.weights.h5` file. Pretrained
            models and files contain weights, which `"imagenet"` keeps.
        image_size: (height, width) in pixels.
        last_stride: 1 undoes the last halving of the feature map, so that it keeps four times
            the positions (Luo et al., Bag of Tricks, CVPRW 2019, arXiv:1903.07071); 2 leaves the
            network as published. A pretrained model has no last halving.
        mixstyle: probability that `layers.MixStyle` mixes the maps of a training batch with a
            quarter and an eighth of the size of the image; 0: never.
        instance_norm: fraction of the channels of the same maps that are normalized over the
            positions of each image. It removes the style of the camera (Jia et al., DualNorm, BMVC
            2019, arXiv:1905.03422; one half: Pan et al., IBN-Net, ECCV 2018, arXiv:1807.09441).
            0: none.

    Returns:
        A model `(b, h, w, 3)` → `(b, h', w', d)`. Its batch normalizations run fused.

    Raises:
        InputError: unknown name, weights that do not match or are not available, a file that is
            not a feature extractor.
    """
    shape = (*image_size, 3)
    if name.endswith(".keras"):
        model = _from_file(name)
    elif name.startswith("keras_cv:"):
        model = _keras_cv(name.removeprefix("keras_cv:"), weights)
    elif name.startswith(PREFIX):
        model = shipped.backbone(name.removeprefix(PREFIX))
        last_stride = 2  # keep the trained network
    elif name in BACKBONES:
        model = _published(name, weights, shape)
    else:
        known = ", ".join(sorted(BACKBONES))
        rule = f"one of {known}, pretrained:NAME, keras_cv:PRESET or a .keras file"
        raise invalid("backbone", rule, name)
    _check_map(model, name, image_size)
    model = adapt(model, image_size, last_stride, mixstyle, instance_norm)
    if weights not in ("imagenet", "none"):
        load_weights(model, weights)
    return model


def load_weights(model: keras.Model, path: str) -> None:
    """Load a weights file into a model, or raise `InputError` if it does not match."""
    path = str(expanded(path))
    if not Path(path).is_file():
        raise invalid("weights", "'imagenet', 'none' or an existing file", path)
    try:
        model.load_weights(path)
    except Exception as error:
        received = Shown(f"{path!r}, which does not fit ({first_line(error)})")
        raise invalid("weights", f"saved from the same {model.name}", received) from error


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
    """Normalize the first channels, this fraction of them, of maps `(b, h, w, c)`."""
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
        rule = "a network that halves maps of a quarter or an eighth of the image"
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


def _published(name: str, weights: str, shape: Shape) -> keras.Model:
    try:
        return BACKBONES[name]("imagenet" if weights == "imagenet" else None, shape)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"The backbone {name!r} with weights={weights!r} cannot be built for {shape[0]}×"
            f"{shape[1]} pixels: {first_line(error)}. Use weights='none' or a .keras file."
        ) from error


def _from_file(path: str) -> keras.Model:
    model = read_model(path)
    if not getattr(model, "inputs", None):
        raise invalid("backbone", "a functional model", path)
    return model


def _keras_cv(preset: str, weights: str) -> keras.Model:
    models = checks.installed("keras_cv.models", "keras-cv")
    families = [value for key, value in vars(models).items() if key.endswith("Backbone")]
    presets = sorted({preset for family in families for preset in family.presets})
    preset = os.path.expanduser(preset)
    if preset not in presets and not Path(preset).is_dir():
        rule = f"keras_cv: with one of {', '.join(presets)} or the folder of a preset"
        raise invalid("backbone", rule, preset)
    try:
        net = models.Backbone.from_preset(preset, load_weights=weights == "imagenet")
    except Exception as error:
        raise InputError(
            f"The KerasCV backbone {preset!r} cannot be downloaded: {first_line(error)}. Pass the "
            "folder of a preset."
        ) from error
    # A plain functional model of the same layers: KerasCV's own class cannot be cloned.
    return keras.Model(net.input, net.output, name="keras_cv")


def _check_map(model: keras.Model, name: str, image_size: tuple[int, int]) -> None:
    shape = model.compute_output_shape((None, *image_size, 3))
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:] or 0 in shape:
        received = Shown(f"{shape} of {name!r} for {image_size[0]}×{image_size[1]} pixels")
        fix = "Use a model without its classifier."
        raise invalid("backbone", "a network with one feature map (b, h, w, d)", received, fix)
