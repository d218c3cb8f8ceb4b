"""Backbones: networks by name or from a file, from pixels to a feature map.

Every backbone takes float RGB pixels 0..255 `(b, h, w, 3)`, normalizes them as its weights require,
and returns `(b, h', w', d)`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from keras_reid import checks
from keras_reid.errors import Shown, first_line, invalid
from keras_reid.io import parsing, read_model
from keras_reid.models import shipped
from keras_reid.models.adapted import adapt
from keras_reid.models.registry import BACKBONES
from keras_reid.models.shipped import PREFIX
from keras_reid.names import expanded

Shape = tuple[int, int, int]


def resnet50(weights: str | None, shape: Shape) -> keras.Model:
    """ResNet-50 (He et al., CVPR 2016).

    Args:
        weights: `"imagenet"`, or None for random weights.
        shape: (height, width, 3) of the images, in pixels.
    """
    pixels = keras.Input(shape)
    # ImageNet's mean in the order blue, green, red, as the published weights were trained.
    x = keras.layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68], name="bgr_mean")(
        pixels[..., ::-1]
    )
    net = keras.applications.ResNet50(include_top=False, weights=weights, input_shape=shape)
    return keras.Model(pixels, net(x), name="resnet50")


def mobilenetv2(weights: str | None, shape: Shape) -> keras.Model:
    """MobileNetV2 (Sandler et al., CVPR 2018).

    Args:
        weights: `"imagenet"`, or None for random weights.
        shape: (height, width, 3) of the images, in pixels.
    """
    pixels = keras.Input(shape)
    x = keras.layers.Rescaling(1.0 / 127.5, offset=-1.0, name="unit_range")(pixels)
    net = keras.applications.MobileNetV2(include_top=False, weights=weights, input_shape=shape)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.99  # 0.999, as published, forgets ImageNet in some thousand steps
    return keras.Model(pixels, net(x), name="mobilenetv2")


def efficientnetv2_b0(weights: str | None, shape: Shape) -> keras.Model:
    """EfficientNetV2-B0 (Tan and Le, ICML 2021).

    Args:
        weights: `"imagenet"`, or None for random weights.
        shape: (height, width, 3) of the images, in pixels.
    """
    return keras.applications.EfficientNetV2B0(
        include_top=False, weights=weights, input_shape=shape, include_preprocessing=True
    )


def tiny(weights: str | None, shape: Shape) -> keras.Model:
    """Four 3×3 convolutions with batch normalization: trains from scratch in a minute on a CPU.

    Args:
        weights: None, because no weights are published.
        shape: (height, width, 3) of the images, in pixels.

    Raises:
        ValueError: other weights.
    """
    if weights is not None:
        raise ValueError("The backbone tiny has no published weights")
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

    Example:
        >>> strides = [build("tiny", "none", (64, 32), last_stride) for last_stride in (1, 2)]
        >>> [model.output_shape for model in strides]
        [(None, 8, 4, 128), (None, 4, 2, 128)]
    """
    shape = (*image_size, 3)
    if name.endswith(".keras"):
        model = read_model(name)
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
    """Load a weights file into a model.

    Args:
        model: backbone.
        path: `.weights.h5` file.

    Raises:
        InputError: a file that is missing or does not match.
    """
    fix = "Write weights='imagenet' or weights='none' for a backbone without a file."
    with parsing(path, f"hold weights of the same {model.name}", fix, Exception):
        model.load_weights(expanded(path))


def _published(name: str, weights: str, shape: Shape) -> keras.Model:
    try:
        return BACKBONES[name]("imagenet" if weights == "imagenet" else None, shape)
    except Exception as error:
        rule = f"available with weights={weights!r} for {shape[0]}×{shape[1]} pixels"
        received = Shown(f"{name!r} ({first_line(error)})")
        fix = "Use weights='none' or a .keras file."
        raise invalid("backbone", rule, received, fix) from error


def _keras_cv(preset: str, weights: str) -> keras.Model:
    models = checks.installed("keras_cv.models", "keras-cv")
    families = [value for key, value in vars(models).items() if key.endswith("Backbone")]
    presets = sorted({preset for family in families for preset in family.presets})
    try:
        folder = str(expanded(preset))
        net = models.Backbone.from_preset(folder, load_weights=weights == "imagenet")
    except Exception as error:
        rule = f"keras_cv: followed by one of {', '.join(presets)} or the folder of a preset"
        raise invalid("backbone", rule, Shown(f"{preset!r} ({first_line(error)})")) from error
    # A plain functional model of the same layers: KerasCV's own class cannot be cloned.
    return keras.Model(net.input, net.output, name="keras_cv")


def _check_map(model: keras.Model, name: str, image_size: tuple[int, int]) -> None:
    functional = bool(getattr(model, "inputs", None))
    shape = model.compute_output_shape((None, *image_size, 3)) if functional else None
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:] or 0 in shape:
        received = Shown(f"{shape} of {name!r} for {image_size[0]}×{image_size[1]} pixels")
        fix = "Remove the classifier of the model."
        raise invalid(
            "backbone", "a functional model with one feature map (b, h, w, d)", received, fix
        )
