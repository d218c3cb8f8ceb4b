"""Create a pretrained model, `keras_reid/models/weights/NAME`, from two runs of one recipe.

    python tools/pretrained.py --name=person-mobilenetv2 --run=ALL --scored=PART \\
        --data_dir=Market-1501 --trained_on="…" --scored_on="…" --license="…"
    python tools/pretrained.py --name=person-mobilenetv2     # only the ONNX export

The model is that of `--run`, trained with `--combine_all`, which leaves no test set. Scores and
thresholds are those of `--scored`, trained on the training part only and evaluated on the test
part. The weights of both models are rounded to float16. The ONNX export contains the same numbers
in float16, without folded batch normalizations, which the runtimes fold in float32 as they open it.
"""

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import h5py
import keras
import numpy as np
import onnx
import tf2onnx.optimizer
from absl import app, flags
from onnx import TensorProto, helper, numpy_helper

from keras_reid import data, evaluation, inference, load_model, models
from keras_reid.data import synthetic
from keras_reid.inference.metadata import Metadata, digest_of
from keras_reid.models.shipped import FOLDER
from keras_reid.serving import formats, parity
from keras_reid.training import Run

FLAGS = flags.FLAGS
flags.DEFINE_string("name", None, "Of the model.", required=True)
flags.DEFINE_string("run", None, "Run folder of the model. Default: write only the ONNX export.")
flags.DEFINE_string("scored", None, "Run folder of the same recipe that is scored.")
flags.DEFINE_string("dataset", "market1501", "Of the scores.")
flags.DEFINE_string("data_dir", None, "Of the scores.")
flags.DEFINE_string("trained_on", None, "In words.")
flags.DEFINE_string("scored_on", None, "In words.")
flags.DEFINE_string("license", None, "In words.")
TOGETHER = ("run", "scored", "data_dir", "trained_on", "scored_on", "license")
flags.register_multi_flags_validator(
    TOGETHER,
    lambda values: len({value is None for value in values.values()}) == 1,
    f"{', '.join(TOGETHER)} are required together",
)

UNSAID = ("data_dir", "run", "seed", "cache")  # of the machine, not of the recipe
FARS = (1e-2, 1e-3, 1e-4)
SMALL = 64  # weights of so few numbers stay in float32
MOST_BYTES = 10 * 10**6  # of the weights in the wheel


def main(argv: list[str]) -> None:
    folder = FOLDER / FLAGS.name
    if FLAGS.run is not None:
        write_model(Run(FLAGS.run), folder)
    write_onnx(load_model(folder / "model.keras", compile=False), folder / "onnx")
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    if size > MOST_BYTES:
        raise SystemExit(f"The weights of all models take {size:,} bytes, more than {MOST_BYTES:,}")


def write_model(run: Run, folder: Path) -> None:
    """Write the Keras model and the card."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(run, folder / "model.keras")
    with tempfile.TemporaryDirectory() as temporary:
        write(Run(FLAGS.scored), Path(temporary) / "model.keras")
        other = load_model(Path(temporary) / "model.keras", compile=False)
    scores, thresholds = scored(other)
    model = load_model(folder / "model.keras", compile=False)
    known = inference.load(model)
    card = {
        "image_size": list(known.image_size),
        "embedding_dim": int(model.output["embedding"].shape[-1]),
        "flip": False,
        "trained_on": FLAGS.trained_on,
        "command": command(run),
        "license": FLAGS.license,
        "scored": FLAGS.scored_on,
        "scores": scores,
        "thresholds": thresholds,
        "recorded": [round(float(x), 6) for x in known([drawn(known.image_size)])[0][:16]],
        "sha256": hashlib.sha256((folder / "model.keras").read_bytes()).hexdigest(),
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(card, indent=2, ensure_ascii=False))


def write_onnx(model: keras.Model, folder: Path) -> None:
    """Write the export of a model whose weights are numbers of float16, compared with the model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    net = models.outputs_at_test(model)
    single = keras.Model(net.input, models.unit_outputs(net)(net.input))
    file = folder / "model.onnx"
    with mock.patch.dict(tf2onnx.optimizer._optimizers):
        # It would fold batch normalizations, whose products float16 does not represent.
        del tf2onnx.optimizer._optimizers["remove_back_to_back"]
        formats.write(single, folder, "onnx", "float32", None)
    onnx.save(with_half_weights(onnx.load(file)), file)
    size, dim = models.image_size(model), int(net.output["embedding"].shape[-1])
    settings = {"fingerprint": inference.fingerprint(model), "flip": False, "local": None}
    files = {file.name: digest_of(file)}
    Metadata("onnx", "float32", size, dim, files=files, **settings).write(folder)
    pixels = np.stack([synthetic.draw(i, camera=1, instance=0, size=size) for i in range(32)])
    report = parity(model, folder, pixels, 1e-5)
    print(report)
    if not report.ok:
        raise SystemExit("The ONNX export differs from the model.")


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store weights in float16, with casts to float32 that runtimes carry out as they open it."""
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.dtype == np.float32 and values.size > SMALL and (half == values).all():
            name, stored = weight.name, f"{weight.name}_half"
            weight.CopyFrom(numpy_helper.from_array(half, stored))
            casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def drawn(size: tuple[int, int]) -> np.ndarray:
    """Return the image of tests/unit/test_pretrained.py."""
    image = np.zeros((1, *size, 3), np.uint8)
    third = size[0] // 3
    image[:, :third], image[:, third : 2 * third], image[:, 2 * third :] = 200, (180, 40, 40), 60
    image[:, ::8] = 255
    return image


def write(run: Run, file: Path) -> None:
    """Return the model of the run without training outputs, with float16 weights."""
    whole = run.load_model()
    outputs = {name: whole.output[name] for name in ("features", "embedding")}
    keras.Model(whole.input, outputs, name="embedder").save(file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    held = io.BytesIO(members["model.weights.h5"])
    with h5py.File(held, "r") as full:
        halved = io.BytesIO()
        with h5py.File(halved, "w") as half:
            copy(full, half)
    members["model.weights.h5"] = halved.getvalue()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            # A date of its own would make each file another.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def copy(source: h5py.Group, target: h5py.Group) -> None:
    """Copy groups and arrays, and convert float32 to float16."""
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            copy(item, target.create_group(name))
        else:
            values = item[()]
            half = values.astype(np.float16) if values.dtype == np.float32 else values
            if not np.isfinite(half).all():
                raise ValueError(f"{name} is beyond float16")
            target.create_dataset(name, data=half).attrs.update(item.attrs)


def command(run: Run) -> str:
    """Return the command of `train.py` with the values that differ from the recipe."""
    from keras_reid.training import recipes

    said = dict(run.settings)
    recipe = recipes.get(said["recipe"]).settings
    changed = {k: v for k, v in said.items() if k in recipe and v != recipe[k]}
    changed["backbone"] = "mobilenetv2"
    words = [f"--dataset={said['dataset']}", "--data_dir=…", f"--recipe={said['recipe']}"]
    words += [f"--{k}={v}" for k, v in changed.items() if k not in UNSAID]
    if said.get("combine_all"):
        words.append("--combine_all")
    return " ".join(["python train.py", *words])


def scored(model: keras.Model) -> tuple[dict, dict]:
    """Return scores and thresholds, with and without the mirror image."""
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    query, gallery = dataset.query, dataset.gallery
    scores = {}
    for name, flip in (("embedding", False), ("with the mirror image", True)):
        embedder = inference.load(model, flip=flip)
        q, g = embedder.embed(query), embedder.embed(gallery)
        for how, reranking in ((name, "none"), (f"{name}, re-ranked", "k_reciprocal")):
            rows = evaluation.compare(q, g, "euclidean", reranking)
            result = evaluation.rank(rows, query, gallery, camera_pairs=how == "embedding")
            low, high = result.interval("mAP")
            scores[how] = {
                **result.to_dict(),
                "mAP_interval": [low, high],
            }
            scores[how]["cmc"] = [round(float(x), 4) for x in result.cmc[:10]]
        if not flip:
            plain = q, g
    rows = evaluation.compare(*plain)
    verification = evaluation.verify(*evaluation.pairs(rows, query, gallery))
    thresholds = {f"1:1 at FAR {far:g}": asdict(verification.threshold_at_far(far)) for far in FARS}
    names = np.unique(query.identity)
    non_mated = np.random.default_rng(0).permutation(names)[: len(names) // 2]
    enrolled = np.flatnonzero(~np.isin(gallery.identity, non_mated))
    found = evaluation.open_set((plain[0], plain[1][enrolled]), query, gallery[enrolled])
    thresholds["1:N at FAR 0.01"] = asdict(found.threshold_at_far(1e-2))
    scores["open set, half of the identities enrolled"] = found.to_dict()
    scores["verification"] = verification.to_dict()
    return scores, thresholds


if __name__ == "__main__":
    app.run(main)
