"""Train a pair verifier on synthetic pedestrians and compare images of other persons.

    python examples/verify_pairs.py
    python examples/verify_pairs.py --epochs=20

Nothing is downloaded. The command line does the same:

    python train.py --recipe=pair_verifier --backbone=tiny --weights=none --run=RUN
    python search.py --model=RUN verify FIRST.jpg SECOND.jpg
"""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

from keras_reid import data, inference
from keras_reid.cli.train import TrainOptions, train

flags.DEFINE_integer("epochs", 15, "Number of training epochs.")
flags.DEFINE_integer("seed", 0, "Seed of the drawings, weights and pairs.")
FLAGS = flags.FLAGS
SETTINGS = {"backbone": "tiny", "weights": "none", "height": 64, "width": 32}


def main(argv: list[str]) -> None:
    del argv
    with tempfile.TemporaryDirectory() as folder:
        drawn = f"{folder}/drawn"
        data.synthetic.generate(drawn, 100, 30, images_per_camera=2, size=(64, 32), seed=FLAGS.seed)
        settings = {**SETTINGS, "epochs": FLAGS.epochs, "learning_rate": 1e-3}
        options = TrainOptions(
            recipe="pair_verifier",
            dataset="synthetic",
            data_dir=drawn,
            run=f"{folder}/run",
            seed=FLAGS.seed,
            cache="memory",
            settings=settings,
        )
        train(options)  # prints AUC and EER on persons that were not trained on
        compare(f"{folder}/run", data.load("synthetic", drawn))


def compare(run: str, dataset: data.ReidDataset) -> None:
    """Print the match probabilities of one query with images of its person and of another."""
    verifier = inference.load(run)
    query, gallery = dataset.query[:1], dataset.gallery[~dataset.gallery.distractor]
    same = gallery.identity == query.identity[0]
    for name, images in (("one person", gallery[same]), ("two persons", gallery[~same])):
        second = images.path[:5].tolist()
        distances = verifier.distances(query.path.tolist() * len(second), second)
        for distance, probability in zip(distances, verifier.probability(distances), strict=True):
            print(f"{name}: distance {distance:.3f}, probability {probability:.0%}")


if __name__ == "__main__":
    app.run(main)
