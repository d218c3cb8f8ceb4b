"""`keras-reid search calibrate`: adapt match probabilities to a gallery."""

from keras_reid import data, evaluation, gallery
from keras_reid.cli.common import GalleryOptions
from keras_reid.cli.startup import import_keras
from keras_reid.cli.terminal import progress, say


def calibrate(options: GalleryOptions, arguments: list[str]) -> evaluation.MatchCalibration:
    """Fit match probabilities on a data set if there is one, and adapt them to the gallery."""
    with gallery.open(options.uri) as people:
        people.check_model(options.fingerprint)  # before minutes of embedding
        if options.dataset is not None:
            people.calibration = _data_set_calibration(options)
        else:
            options.calibrated(people)
        adaptation = people.calibrate()
        calibration = people.calibration
    assert calibration is not None
    say(f"match probabilities: {calibration.source}")
    if adaptation is None:
        say(
            f"{options.uri} has too few images to adapt them: at least 5 persons with 2 images "
            "are required"
        )
    else:
        say(
            f"adapted to {adaptation.after.images:,} images of {adaptation.after.persons:,} persons"
        )
        say(adaptation.table(options.limits))
    return calibration


def _data_set_calibration(options: GalleryOptions) -> evaluation.MatchCalibration:
    """Return match probabilities of a data set."""
    dataset = options.dataset_of(options.dataset, options.data_dir, "probabilities need images")
    parts = [part for part in (dataset.query, dataset.gallery) if part is not None]
    images = data.joined(*(parts or dataset.parts().values()))
    import_keras()
    known = images[~(images.distractor | images.unlabeled)]
    images = data.readable(known, progress=progress("reading images"))
    labels = images.per_tracklet()
    embeddings = options.embedder()(images)
    return evaluation.fit_calibration([(embeddings, labels.identity)], str(options.data_dir))
