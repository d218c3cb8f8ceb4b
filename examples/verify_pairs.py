"""Pair verifier for images of two persons, trained on synthetic pedestrians.

    python examples/verify_pairs.py
    python examples/verify_pairs.py --epochs=20 --gate=re_lu_2

Nothing is downloaded. Each run draws the pedestrians, which depend on the seed. The test pairs are
every query image with every gallery image of another camera, of persons outside the training set.
AUC is the probability that a pair of one person is nearer than a pair of two. Accuracy weights
both kinds of pairs equally, at the best threshold for the training persons.
"""

import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags

from keras_reid import data, losses, models

flags.DEFINE_integer("epochs", 15, "Epochs of training.")
flags.DEFINE_integer("pairs", 32, "Pairs in a batch, half of them of one person.")
flags.DEFINE_integer("identities", 100, "People to train on.")
flags.DEFINE_string("backbone", "tiny", "See keras_reid.models.backbones.build.")
flags.DEFINE_string("weights", "none", "imagenet, none or a .weights.h5 file.")
flags.DEFINE_string("gate", None, "Layer behind which the two maps are compared; default: middle.")
flags.DEFINE_float("margin", 1.0, "Distance of a pair of two persons with zero loss.")
flags.DEFINE_float("learning_rate", 1e-3, "Highest rate of Adam; falls to 0 on half a cosine.")
flags.DEFINE_integer("seed", 0, "Seed of the drawings, weights and pairs.")
FLAGS = flags.FLAGS
SIZE = (64, 32)


def main(argv: list[str]) -> None:
    del argv
    keras.utils.set_random_seed(FLAGS.seed)
    with tempfile.TemporaryDirectory() as folder:
        train, query, gallery = draw(f"{folder}/drawn")
        model = models.build_pair_verifier(
            FLAGS.backbone, SIZE, weights=FLAGS.weights, gate=FLAGS.gate
        )
        seen = np.random.default_rng(FLAGS.seed).permutation(len(train))
        known = train[seen[:50]], train[seen[50:250]]
        report("before training", model, (query, gallery), known)
        begin = time.perf_counter()
        fit(model, train)
        print(f"trained {FLAGS.epochs} epochs in {time.perf_counter() - begin:.0f} s")
        report("after training", model, (query, gallery), known)


def draw(folder: str) -> tuple[data.PersonImages, ...]:
    """Training images, and query and gallery images of other people, without distractors."""
    data.synthetic.generate(
        folder,
        train_identities=FLAGS.identities,
        test_identities=30,
        images_per_camera=2,
        distractors=0,
        size=SIZE,
        seed=FLAGS.seed,
    )
    drawn = data.load("synthetic", folder)
    return drawn.train, drawn.query, drawn.gallery


def fit(model: keras.Model, train: data.PersonImages) -> None:
    steps = data.pk_steps(train, FLAGS.pairs // 2, 2)
    rate = keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, FLAGS.epochs * steps)
    contrastive = losses.ContrastiveLoss(FLAGS.margin, pairs="given")
    model.compile(keras.optimizers.Adam(rate), {"distance": contrastive})
    batches = data.pair_batches(train, FLAGS.pairs, SIZE, seed=FLAGS.seed, cache="memory")
    model.fit(batches, steps_per_epoch=steps, epochs=FLAGS.epochs, verbose=2, shuffle=False)


def report(when: str, model: keras.Model, held_out: tuple, known: tuple) -> None:
    """Prints AUC and accuracy on held-out people; the threshold comes from known ones."""
    same, different = distances(model, *held_out)
    threshold = best_threshold(*distances(model, *known))
    auc = (same[:, None] < different).mean() + (same[:, None] == different).mean() / 2
    accuracy = balanced_accuracy(same, different, threshold)
    print(
        f"{when}: AUC {auc:.3f}, accuracy {accuracy:.1%} at distance {threshold:.3f}, on "
        f"{len(same)} pairs of one person and {len(different)} of two"
    )


def distances(
    model: keras.Model, query: data.PersonImages, gallery: data.PersonImages
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of all pairs across cameras: of one person, and of two."""
    pixels = (
        np.concatenate(list(data.image_batches(images, 64, SIZE).as_numpy_iterator()))
        for images in (query, gallery)
    )
    apart = models.pair_distances(model, *pixels)
    same = query.identity[:, None] == gallery.identity
    across = query.camera[:, None] != gallery.camera
    return apart[same & across], apart[~same & across]


def best_threshold(same: np.ndarray, different: np.ndarray) -> float:
    candidates = np.unique(np.quantile(np.concatenate([same, different]), np.linspace(0, 1, 201)))
    return float(max(candidates, key=lambda t: balanced_accuracy(same, different, t)))


def balanced_accuracy(same: np.ndarray, different: np.ndarray, threshold: float) -> float:
    return float(((same <= threshold).mean() + (different > threshold).mean()) / 2)


if __name__ == "__main__":
    app.run(main)
