"""TensorBoard logs of a training run in addition to its losses."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins import projector
from tensorboard.plugins.hparams import api as hparams

from keras_reid import evaluation
from keras_reid.training import RetrievalEvaluation
from keras_reid.visualize.pictures import draw_ranked_lists, thumbnail

QUERIES = 500  # number of queries in the histograms
LISTS = 8  # number of ranked lists
POINTS = 1_000  # embeddings in the projector
SPRITE = 48  # height of their pictures, in pixels


class Board(keras.callbacks.Callback):
    """Callback that logs histograms of d⁺ and d⁻, and optionally ranked lists, at each scoring.

    Args:
        scores: callback that scores the model; it comes before this one.
        logs: folder of TensorBoard's logs.
        pictures: log images of people too.
    """

    def __init__(self, scores: RetrievalEvaluation, logs: str | Path, pictures: bool) -> None:
        super().__init__()
        self.scores, self.logs, self.pictures = scores, Path(logs), pictures

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if "val_mAP" in (logs or {}):
            with self._writer.as_default(step=epoch):
                self._distances()

    def finish(self, settings: Mapping[str, Any], final: Mapping[str, float], epochs: int) -> None:
        """Log hyperparameters with the final scores, and embeddings."""
        with self._writer.as_default(step=epochs):
            plain = {k: v for k, v in settings.items() if isinstance(v, bool | int | float | str)}
            hparams.hparams(plain)
            for name, value in final.items():
                tf.summary.scalar(name, value)
            self._distances()
        self._writer.close()
        self._project()

    @cached_property
    def _writer(self) -> Any:
        return tf.summary.create_file_writer(str(self.logs / "scores"))

    def _distances(self) -> None:
        scored = self.scores.last
        few = np.linspace(0, len(scored.query) - 1, min(QUERIES, len(scored.query))).astype(int)
        query, (embeddings, others) = scored.query[few], scored.embeddings
        rows = evaluation.compare(embeddings[few], others)
        rule = "no-camera" if query.camera is None else "market1501"
        distances, same = evaluation.pairs(rows, query, scored.gallery, rule)
        for name, chosen in (("one person", same), ("two persons", ~same)):
            tf.summary.histogram(f"distances/{name}", distances[chosen])
        if self.pictures:
            chosen = np.linspace(0, len(few) - 1, min(LISTS, len(few))).astype(int).tolist()
            lists = evaluation.ranked_lists(rows, query, scored.gallery, chosen)
            picture = draw_ranked_lists(lists, query.path, scored.gallery.path)
            tf.summary.image("ranked lists", np.asarray(picture)[None])

    def _project(self) -> None:
        """Write embeddings of gallery images with labels, and optionally pictures."""
        scored = self.scores.last
        count = len(scored.gallery)
        few = np.sort(np.random.default_rng(0).permutation(count)[:POINTS])
        folder = self.logs / "embeddings"
        folder.mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / "tensors.tsv", scored.embeddings[1][few], "%.6g", delimiter="\t")
        images = scored.gallery[few]
        cameras = np.full(len(few), "") if images.camera is None else images.camera
        rows = np.stack([images.identity.astype(str), cameras.astype(str)], axis=1)
        table, header = folder / "metadata.tsv", "identity\tcamera"
        np.savetxt(table, rows, "%s", "\t", header=header, comments="", encoding="utf-8")
        config = projector.ProjectorConfig()
        one = config.embeddings.add()
        one.tensor_name = "embedding"
        one.tensor_path, one.metadata_path = "tensors.tsv", "metadata.tsv"
        if self.pictures:
            one.sprite.image_path = "sprite.png"
            one.sprite.single_image_dim.extend([SPRITE, SPRITE])
            _sprite(images.path).save(folder / "sprite.png")
        projector.visualize_embeddings(str(folder), config)


def _sprite(paths: Any) -> Image.Image:
    """Return a square of square pictures, row by row: the format of the projector."""
    side = int(np.ceil(np.sqrt(len(paths))))
    whole = Image.new("RGB", (side * SPRITE, side * SPRITE), (255, 255, 255))
    for i, path in enumerate(paths):
        place = (i % side * SPRITE, i // side * SPRITE)
        whole.paste(thumbnail(path, SPRITE, SPRITE), place)
    return whole
