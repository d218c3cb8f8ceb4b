"""What TensorBoard shows of a training beside its losses."""

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

QUERIES = 500  # whose distances are in the histograms
LISTS = 8  # queries whose lists are shown
POINTS = 1_000  # embeddings in the projector
SPRITE = 48  # height of their pictures, in pixels


class Board(keras.callbacks.Callback):
    """Histograms of d⁺ and d⁻ whenever the model is scored, and ranked lists if wanted.

    Args:
        scores: what scores it, a callback that comes before this one.
        logs: the folder of TensorBoard's logs.
        pictures: whether images of people may be in the logs.
    """

    def __init__(self, scores: RetrievalEvaluation, logs: str | Path, pictures: bool) -> None:
        super().__init__()
        self.scores, self.logs, self.pictures = scores, Path(logs), pictures

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if "val_mAP" in (logs or {}):
            with self._writer.as_default(step=epoch):
                self._distances()

    def finish(self, settings: Mapping[str, Any], final: Mapping[str, float], epochs: int) -> None:
        """What is left of a trained model: hyperparameters with scores, and embeddings."""
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
        found = self.scores.last
        few = np.linspace(0, len(found.query) - 1, min(QUERIES, len(found.query))).astype(int)
        query, (embeddings, others) = found.query[few], found.embeddings
        rows = evaluation.compare(embeddings[few], others)
        judged = "no-camera" if query.camera is None else "market1501"
        distances, same = evaluation.pairs(rows, query, found.gallery, judged)
        for name, chosen in (("one person", same), ("two persons", ~same)):
            tf.summary.histogram(f"distances/{name}", distances[chosen])
        if self.pictures:
            shown = np.linspace(0, len(few) - 1, min(LISTS, len(few))).astype(int).tolist()
            lists = evaluation.ranked_lists(rows, query, found.gallery, shown)
            picture = draw_ranked_lists(lists, query.path, found.gallery.path)
            tf.summary.image("ranked lists", np.asarray(picture)[None])

    def _project(self) -> None:
        """Embeddings of gallery images, with who and where, and with pictures if wanted."""
        found = self.scores.last
        count = len(found.gallery)
        few = np.sort(np.random.default_rng(0).permutation(count)[:POINTS])
        folder = self.logs / "embeddings"
        folder.mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / "tensors.tsv", found.embeddings[1][few], "%.6g", delimiter="\t")
        images = found.gallery[few]
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
    """A square of square pictures, row by row, as the projector wants it."""
    side = int(np.ceil(np.sqrt(len(paths))))
    whole = Image.new("RGB", (side * SPRITE, side * SPRITE), (255, 255, 255))
    for i, path in enumerate(paths):
        place = (i % side * SPRITE, i // side * SPRITE)
        whole.paste(thumbnail(path, SPRITE, SPRITE), place)
    return whole
