"""Draw the aligned stripes of two images of one pedestrian, with one box too low.

    python examples/draw_alignment.py --out=docs/images/alignment.png
    python examples/draw_alignment.py --run=runs/synthetic-aligned-1

Nothing is downloaded: the pedestrians are drawn, and without `--run` a small model is trained on
them for a minute. Prints the mean cost of a step of the path, and of a row without alignment.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags

from keras_reid import data, distances, models, training, visualize
from keras_reid.errors import InputError
from keras_reid.pixels import decode, resize
from keras_reid.training import recipes

flags.DEFINE_string("run", None, "A run folder of train.py; default: a small model is trained.")
flags.DEFINE_string("out", "alignment.png", "The new picture.")
flags.DEFINE_float("shift", 0.25, "By how much of its height the second image is cut too low.")
flags.DEFINE_integer("epochs", 8, "Epochs of the small model.")
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    del argv
    try:
        draw()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def draw() -> None:
    if Path(FLAGS.out).exists():
        raise InputError(f"--out is a new file: {FLAGS.out!r} exists; name another")
    with tempfile.TemporaryDirectory() as folder:
        dataset = data.load("synthetic", Path(folder) / "drawn")
        model = training.Run(FLAGS.run).load_model() if FLAGS.run else trained(dataset, folder)
        first, second = pair(dataset)
    size = tuple(model.input_shape[1:3])
    images = np.stack([resize(image, size) for image in (first, second)])
    local = models.stripes(model)(images)["local"]
    apart = np.tanh(np.linalg.norm(local[0][:, None] - local[1][None], axis=-1) / 2)
    total, path = distances.aligned(local[:1], local[1:], return_path=True)
    visualize.draw_alignment(first, second, np.array(path[0, 0]), apart).save(FLAGS.out)
    steps = path.shape[2] + path.shape[3] - 1
    a_step, a_row = float(total[0, 0]) / steps, np.trace(apart) / len(apart)
    print(f"a step costs {a_step:.2f}, row by row {a_row:.2f}: see {FLAGS.out}")


def trained(dataset: data.ReidDataset, folder: str) -> keras.Model:
    recipe = recipes.get("tiny").replace(epochs=FLAGS.epochs, stripes=8)
    plan = training.Plan.of(recipe, dataset.train)
    (model,) = plan.members()
    return training.fit(model, plan, training.Run(Path(folder) / "run"), {}, verbose=2)


def pair(dataset: data.ReidDataset) -> tuple[np.ndarray, np.ndarray]:
    """Return a query image, and a gallery image of the same identity with the feet too high."""
    query = dataset.query[:1]
    same = dataset.gallery[dataset.gallery.identity == query.identity[0]]
    other = same[same.camera != query.camera[0]]
    first, second = (decode(images.path[0]) for images in (query, other))
    rows = int(FLAGS.shift * len(second))
    return first, np.concatenate([second[rows:], np.repeat(second[-1:], rows, axis=0)])


if __name__ == "__main__":
    app.run(main)
