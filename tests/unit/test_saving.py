"""Saved models and losses load in a fresh process, and unsafe model files are rejected."""

import importlib
import json
import pickle
import pkgutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import keras_reid
from keras_reid import distances, losses, mining, models
from keras_reid.errors import InputError
from keras_reid.io import read_model
from keras_reid.scale.embedding import Worker

PACKAGE = Path(keras_reid.__file__).parent
# Other packages export parts of these.
HELPERS = {
    "checks",
    "cli",
    "clips",
    "demo",
    "io",
    "names",
    "nearest",
    "outputs",
    "pixels",
    "registry",
    "replicas",
    "saving",
    "skeletons",
    "verifier",
    "version",
}


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh process that has imported nothing yet."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "model.keras"
    models.build("tiny", 5, (32, 16), weights="none", pooling="gem").save(file)
    return file


# Imports Keras, forks for each statement, and prints the names that are registered after it. If the
# first argument is "later", the package is imported as if Keras were not imported yet.
FORKS = """
import json, os, sys
import keras
from keras.saving import get_custom_objects
if sys.argv[1] == "later":
    del sys.modules["keras"]
for statement in sys.argv[2:]:
    if not os.fork():
        exec(statement)
        print(json.dumps([name for name in get_custom_objects() if "keras_reid>" in name]))
        sys.exit()
    os.wait()
"""


@pytest.fixture(scope="module")
def serializable():
    """All serializable classes and functions of the package, by registered name."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "keras_reid."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    registered = keras.saving.get_custom_objects().items()
    return {name: value for name, value in registered if name.startswith("keras_reid>")}


@pytest.mark.parametrize(
    ("order", "statements"),
    [
        ("first", [f"import keras_reid.{name}" for name in ("gallery", "layers", "training")]),
        (
            "later",
            [
                "from keras_reid.layers import StripePooling",
                "from keras_reid.losses import TripletLoss",
                "from keras_reid.models import build",
                "from keras_reid.training import MutualLearner",
            ],
        ),
    ],
)
def test_every_class_is_registered_in_fresh_process(model_file, serializable, order, statements):
    load = f"import keras_reid; assert keras_reid.load_model({str(model_file)!r}).built"
    worker = Worker(read_model(model_file), flip=False, batch_size=16)
    model_file.with_name("worker").write_bytes(pickle.dumps(worker))
    unpickle = f"import pickle; pickle.load(open({str(model_file.with_name('worker'))!r}, 'rb'))"
    read = f"from keras_reid import io; io.read_model({str(model_file)!r})"
    statements = [load, read, unpickle, *statements]
    called = [sys.executable, "-c", FORKS, order, *statements]
    done = subprocess.run(called, capture_output=True, text=True, check=True)
    of_models = {k for k, one in serializable.items() if ".training." not in one.__module__}
    lines = map(json.loads, done.stdout.splitlines())
    for statement, names in zip(statements, lines, strict=True):
        trains = order == "first" or statement in (load, read) or "training" in statement
        assert {*names} == (serializable.keys() if trains else of_models), statement


@pytest.mark.parametrize("module", ["gallery", "gallery.vectors", "nearest.arrays"])
def test_import_of_light_module_does_not_import_tensorflow(module):
    code = f"import sys, keras_reid.{module}; print({{'keras', 'tensorflow'}} & set(sys.modules))"
    done = python(code)
    assert done.stdout.split() == ["set()"], done.stderr


@pytest.mark.slow
def test_load_model_after_import_keras_alone_error_names_keras_reid(model_file):
    done = python(f"import keras; keras.models.load_model({str(model_file)!r})")
    assert done.returncode == 1
    assert "keras_reid" in done.stderr.strip().splitlines()[-1]
    assert "Could not locate class" in done.stderr


@pytest.mark.slow
def test_package_all_matches_public_modules():
    rooms = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    files = {p.stem for p in PACKAGE.glob("*.py") if p.stem not in ("__init__", "__main__")}
    assert {*keras_reid.__all__} == (rooms | files) - HELPERS | {"__version__", "load_model"}
    done = python("import keras_reid\nfor name in keras_reid.__all__: getattr(keras_reid, name)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        *((losses.TripletLoss, {"miner": m}) for m in (*mining.MINERS.values(), *mining.SPARSE)),
        (losses.TripletLoss, {"miner": mining.semi_hard_of_every_anchor}),
        (losses.TripletLoss, {"miner": mining.batch_soft(0.25, stop_gradient_weights=False)}),
        (losses.ImprovedTripletLoss, {"miner": mining.margin_sample}),
        *(
            (kind, {"distance": distance})
            for kind in (losses.TripletHardLoss, losses.CircleLoss, losses.DistanceDistillationLoss)
            for distance in (distances.euclidean, distances.squared_euclidean, distances.cosine)
        ),
        (losses.TripletHardLoss, {"distance": distances.aligned}),
        (losses.TripletHardLoss, {"distance": distances.precomputed}),
    ],
)
def test_losses_with_package_functions_survive_serialization(kind, chosen):
    loss = kind(**chosen)
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    for name, function in chosen.items():
        restored = getattr(again, name)
        assert restored is function or restored.get_config() == function.get_config()
    assert keras.saving.serialize_keras_object(again) == config


@pytest.mark.slow
def test_load_model_with_metric_loss_continues_training(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    y = np.repeat(np.arange(4), 4)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    loss = losses.TripletLoss(miner=mining.batch_hard, distance=distances.cosine)
    model.compile("sgd", loss=loss)
    model.fit(x, y, batch_size=16, verbose=0)
    model.save(tmp_path / "m.keras")
    code = f"""
import keras_reid, numpy as np
model = keras_reid.load_model({str(tmp_path / "m.keras")!r})
x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
print(model.evaluate(x, np.repeat(np.arange(4), 4), batch_size=16, verbose=0))
model.fit(x, np.repeat(np.arange(4), 4), batch_size=16, verbose=0)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(
        model.evaluate(x, y, batch_size=16, verbose=0), rel=1e-5
    )


def changed(file, folder, change):
    """A copy of a model with another configuration."""
    out = folder / "changed.keras"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config["config"]["layers"])
                content = json.dumps(config).encode()
            new.writestr(name, content)
    return out


def calls(layers):
    layers[-1].update(
        module="keras.layers",
        class_name="Lambda",
        config={
            "name": "x",
            "function": {
                "module": "keras.utils",
                "class_name": "function",
                "config": "get_file",
                "registered_name": "get_file",
            },
            "arguments": {"origin": "file:///etc/hostname", "cache_dir": "."},
        },
    )


def imports(layers):
    layers[-1].update(module="os", class_name="system", registered_name=None)


def activates(layers):
    layers[-1]["config"]["activation"] = {
        "module": "keras.utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": "function",
    }


def runs_python(layers):
    layers[-1]["config"]["activation"] = {
        "module": "builtins",
        "class_name": "function",
        "config": "exec",
        "registered_name": "function",
    }


@pytest.mark.parametrize("change", [calls, imports, activates, runs_python])
def test_read_model_unsafe_config_raises(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2, "relu")(inputs)).save("good.keras")
    assert read_model("good.keras").count_params() == 10
    before = sorted(tmp_path.rglob("*"))
    file = changed("good.keras", tmp_path, change)
    with pytest.raises(InputError, match="must be a Keras model"):
        read_model(file)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, file])


def test_read_model_lambda_raises(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: 2 * x)(inputs)).save(tmp_path / "x.keras")
    with pytest.raises(InputError, match="must be a Keras model"):
        read_model(tmp_path / "x.keras")


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_read_model_linked_weights_raises(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "good.keras")
    for link in (h5py.ExternalLink(tmp_path / "good.h5", "/layers"), h5py.SoftLink("/other")):
        weights = BytesIO()
        with h5py.File(weights, "w") as groups:
            groups["layers"] = link
        with (
            zipfile.ZipFile(tmp_path / "good.keras") as old,
            zipfile.ZipFile(tmp_path / "bad.keras", "w") as new,
        ):
            for name in old.namelist():
                new.writestr(name, weights.getvalue() if name.endswith(".h5") else old.read(name))
        with pytest.raises(InputError, match="must be a Keras model"):
            read_model(tmp_path / "bad.keras")
