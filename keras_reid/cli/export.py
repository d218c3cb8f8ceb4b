"""`python export.py --run=RUN`: a SavedModel for TensorFlow Serving, checked on real images."""

import sys
from pathlib import Path

from absl import flags

from keras_reid import data, models, serving
from keras_reid.cli.shared import FLAGS, command, say
from keras_reid.errors import InputError
from keras_reid.training.runs import Run

flags.DEFINE_string("export_dir", "export", "The model goes to EXPORT_DIR/NAME/VERSION.")
flags.DEFINE_string("name", None, "Name of the served model; default: that of the run folder.")
flags.DEFINE_integer("version", None, "Default: the next free number.", lower_bound=1)
flags.DEFINE_enum(
    "local",
    "none",
    ["none", "pooled", "trained"],
    "A second output 'local': stripes pooled from the last feature map, or the model's own.",
)
flags.DEFINE_integer(
    "stripes", None, "How many are pooled; default: one for each row of the map.", lower_bound=1
)
flags.DEFINE_integer("check_images", 64, "Images of the parity check.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Reads the flags, exports, and compares the export with the model on images."""
    if FLAGS.run is None:
        raise InputError("an export is made from a run folder of train.py: give --run")
    run = Run(FLAGS.run)
    settings = run.flags
    dataset = data.load(
        FLAGS.dataset or settings["dataset"], FLAGS.data_dir or settings["data_dir"]
    )
    part = next(iter(dataset.parts().values()))
    images = data.readable(part[: FLAGS.check_images])
    model = run.load_model(FLAGS.member)
    if FLAGS.local == "pooled":
        model = models.stripes(model, FLAGS.stripes)

    name = FLAGS.name or run.directory.resolve().name
    directory = Path(FLAGS.export_dir) / name
    version = serving.export(
        model, directory, FLAGS.version, flip=settings["flip"], local=FLAGS.local != "none"
    )
    say(f"exported to {version}")
    report = serving.parity(model, version, images, flip=settings["flip"])
    say(str(report))
    if not report.ok:
        sys.exit(1)
    say(
        f"serve it: tensorflow_model_server --model_name={name} "
        f"--model_base_path={directory.resolve()}"
    )


run = command(main)
