"""Conversion of a run for runtimes without TensorFlow, next to the model in the run folder."""

from pathlib import Path

import numpy as np

from keras_reid.data.synthetic import draw
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.inference.sources import Source
from keras_reid.names import StrPath
from keras_reid.serving.exporting import export
from keras_reid.serving.parity_check import parity

CHECKED = 8  # images that compare the conversion with the model
TOLERANCE = 1e-5


def convert(run: StrPath | Source, member: str = "1") -> Path:
    """Write an ONNX export of a run into the run folder, and return the folder of the export.

    `inference.load(run)` and the commands then embed without TensorFlow. The conversion has the
    fingerprint of the model, and applies until the model or `flip` changes. It is not kept if its
    embeddings of synthetic pedestrians differ from those of the model by more than 1e-5.

    Args:
        run: folder of a run with images as its only input.
        member: member of the run, see `keras_reid.inference.load`.

    Raises:
        InputError: not a run, a model with other inputs, or a missing package.
    """
    source = run if isinstance(run, Source) else Source.of(run)
    if source.run is None:
        raise invalid("run", "a run folder", Shown(source))
    if (folder := source.conversion(member)) is not None:
        return folder
    model, flip = source.load_model(member), source.settings["flip"]
    size = tuple(model.inputs[0].shape[1:3])
    images = np.stack([draw(person, camera=1, instance=0, size=size) for person in range(CHECKED)])

    def check(exported: Path) -> None:
        report = parity(model, exported, images, TOLERANCE, flip)
        if not report.ok:
            raise InputError(f"The conversion of {source} differs from the model: {report}.")

    about = {"state": source.run.state(member)}
    return export(model, source.run.conversions, format="onnx", flip=flip, about=about, check=check)
