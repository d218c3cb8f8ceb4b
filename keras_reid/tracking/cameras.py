"""Identities of tracks across cameras: open-set identification by a gallery that grows."""

from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import quote

import numpy as np

from keras_reid.data.mot import Boxes
from keras_reid.errors import InputError
from keras_reid.evaluation import MatchCalibration
from keras_reid.gallery import LIMITS, MATCH, Gallery, Limits, SearchResult
from keras_reid.gallery.decision import decide
from keras_reid.names import normalized
from keras_reid.nearest.arrays import unit
from keras_reid.tracking.detections import check_finite

SAME_LOOK = 1e-2  # distance of unit vectors; embeddings of one image differ by rounding only
DEPTH = 100  # gallery rows that are compared with a track


@dataclass(frozen=True)
class TrackIdentity:
    """Identity of a track, and `distance` to its nearest row; None for a new person."""

    track: int
    identity: str
    distance: float | None


def track_embeddings(tracks: Boxes, embeddings: np.ndarray) -> dict[int, np.ndarray]:
    """Return `e/|e|` of each track by number; e is the mean of its unit embeddings.

    Args:
        tracks: n boxes with the numbers of tracks.
        embeddings: (n, d), one for each box.

    Returns:
        float32 (d,) for each track.

    Example:
        >>> import numpy as np
        >>> from keras_reid import tracking
        >>> from keras_reid.data.mot import Boxes
        >>> tracks = Boxes(np.arange(3), np.array([1, 1, 2]), np.zeros((3, 4)), np.ones(3))
        >>> embeddings = np.array([[3, 0], [1, 0], [0, 2]])
        >>> {n: e.tolist() for n, e in tracking.track_embeddings(tracks, embeddings).items()}
        {1: [1.0, 0.0], 2: [0.0, 1.0]}
    """
    single = unit(np.asarray(embeddings))
    return {
        number: unit(single[tracks.identity == number].mean(axis=0)).astype(np.float32)
        for number in np.unique(tracks.identity).tolist()
    }


# Its keyword arguments are the options of a tracking, as in the commands.
def identify_tracks(
    tracks: Boxes,
    embeddings: np.ndarray,
    people: Gallery,
    camera: str,
    video: str,
    *,
    model_fingerprint: str,
    calibration: MatchCalibration | None = None,
    match_probability: float = LIMITS.match,
    seconds: np.ndarray | None = None,
    start: float = 0.0,
) -> list[TrackIdentity]:
    """Assign an identity of the gallery or a new one to each track of a camera, and enrol it.

    Tracks are processed in the order of their first frames. A track gets the identity of the
    nearest person who is not in this camera at the same time, if that is a match. Otherwise it gets
    a new identity `person-1`, `person-2`, …. Process one camera after the other with the same
    gallery to follow persons across cameras (open-set identification, see `Gallery.identify`).

    Args:
        tracks: n boxes with the numbers of tracks.
        embeddings: (n, d), one for each box.
        people: gallery; enrolled tracks have the image reference `CAMERA@START/VIDEO#TRACK`, see
            `reference`.
        camera: name of the camera.
        video: name of the video. A second run with the same video, camera and start enrols no track
            again: tracks keep their identities.
        model_fingerprint: fingerprint of the model of the embeddings.
        calibration: calibration of match probabilities; None: that of the gallery.
        match_probability: minimum probability of a match.
        seconds: (n,) time of each box after the first frame of the video, such as
            `data.Video(…).times[tracks.frame - 1]`; None: rows have no times.
        start: time of the first frame in seconds.

    Returns:
        One identity for each track, by number.

    Raises:
        InputError: no calibration, embeddings of another number, a gallery that contains other
            tracks of this video with the same numbers, or as `Gallery.enrol`.
    """
    check_finite(tracks.frame, embeddings=embeddings)
    if seconds is not None:
        seconds = np.asarray(seconds)
        check_finite(tracks.frame, seconds=seconds)
    calibration = calibration or people.required_calibration()
    limits = Limits(match_probability, 0)
    means = track_embeddings(tracks, embeddings)
    rows = {number: tracks.identity == number for number in means}
    images = {number: reference(camera, start, video, number) for number in means}
    enrolled = _enrolled(people, images, means)
    spans: dict[str, list[np.ndarray]] = {}  # frames of each person
    result = []
    for number in sorted(means, key=lambda n: tracks.frame[rows[n]].min()):
        frames = tracks.frame[rows[number]]
        name, distance = enrolled.get(number) or _nearest(
            people, means[number], calibration, limits, frames, spans
        )
        if name is None:
            name = _new(people)
        if number not in enrolled:
            time = None if seconds is None else start + float(seconds[rows[number]].min())
            columns: Any = ([name], [camera], [time], [images[number]])
            people.enrol(means[number][None], *columns, model_fingerprint=model_fingerprint)
        spans.setdefault(name, []).append(frames)
        result.append(TrackIdentity(number, name, distance))
    return sorted(result, key=lambda one: one.track)


def reference(camera: str, start: float, video: str, track: int) -> str:
    """Return `CAMERA@START/VIDEO#TRACK`, which is unique for these four values.

    The camera is percent-encoded, so that the first `@`, the first `/` after it and the last `#`
    separate the values.
    """
    return f"{quote(normalized(str(camera)), safe='')}@{float(start):.17g}/{video}#{track}"


def _enrolled(
    people: Gallery, images: dict[int, str], means: dict[int, np.ndarray]
) -> dict[int, tuple[str, float]]:
    """Return identity and distance of the enrolled tracks; raise for another embedding."""
    held = people.held(list(images.values()))
    numbers = [number for number, image in images.items() if image in held]
    if not numbers:
        return {}
    labels = [held[images[number]] for number in numbers]
    stored = unit(people.store.embeddings([row.image for row in labels]))
    distances = np.linalg.norm(stored - np.stack([means[n] for n in numbers]), axis=1)
    if (distances > SAME_LOOK).any():
        other = ", ".join(map(str, np.array(numbers)[distances > SAME_LOOK]))
        raise InputError(
            f"The gallery has tracks {other} of this video, camera and start with other "
            "embeddings. Use the same detections and settings as before, or another gallery."
        )
    return {
        number: (row.identity, float(distance))
        for number, row, distance in zip(numbers, labels, distances, strict=True)
    }


def _nearest(
    people: Gallery,
    embedding: np.ndarray,
    calibration: MatchCalibration,
    limits: Limits,
    frames: np.ndarray,
    spans: dict[str, list[np.ndarray]],
) -> tuple[str | None, float | None]:
    """Return identity and distance of the nearest person who is free, if that is a match."""
    if not (rows := people.count()):
        return None, None

    def free(hit: SearchResult) -> bool:
        others = spans.get(hit.identity, [])
        return all(o.max() < frames.min() or o.min() > frames.max() for o in others)

    hits = list(filter(free, people.search(embedding[None], min(rows, DEPTH))[0]))
    persons = people.persons()
    if hits and decide(hits, calibration, persons, rows / persons, limits).verdict == MATCH:
        return hits[0].identity, hits[0].distance
    return None, None


def _new(people: Gallery) -> str:
    identities = people.identities()
    return next(name for n in count(1) if (name := f"person-{n}") not in identities)
