"""Across cameras: who a tracklet shows, by a gallery that grows with those it does not know."""

from dataclasses import dataclass
from itertools import count
from urllib.parse import quote

import numpy as np

from keras_reid.data.mot import Boxes
from keras_reid.errors import InputError
from keras_reid.evaluation import MatchCalibration
from keras_reid.gallery import LIMITS, MATCH, NOT_CALIBRATED, Gallery, Limits
from keras_reid.gallery.decision import decide
from keras_reid.names import normalized
from keras_reid.nearest.arrays import unit
from keras_reid.tracking.tracker import check_finite

SAME_LOOK = 1e-2  # of unit vectors; embeddings of one image differ by rounding only


@dataclass(frozen=True)
class Identified:
    """Whom a tracklet shows: `distance` to its nearest row, None for a person seen first."""

    track: int
    identity: str
    distance: float | None


def track_embeddings(tracks: Boxes, embeddings: np.ndarray) -> dict[int, np.ndarray]:
    """`e/|e|` of each track, e the mean of its unit embeddings (n, d), by number."""
    single = unit(np.asarray(embeddings))
    return {
        number: unit(single[tracks.identity == number].mean(axis=0)).astype(np.float32)
        for number in np.unique(tracks.identity).tolist()
    }


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
    frame_rate: float | None = None,
    seconds: np.ndarray | None = None,
    start: float = 0.0,
) -> list[Identified]:
    """Gives each track of a camera an identity of the gallery, or a new one, and enrols it.

    In the order in which they begin, a track is a match of the nearest person who is not in this
    camera at the same time already, or else a new person, `person-1`, `person-2`, …. Cameras are
    processed one after the other with the same gallery, which thus follows persons from one to the
    next (open-set identification, see `Gallery.identify`).

    Args:
        tracks: n boxes with the numbers of tracks.
        embeddings: (n, d), one for each box.
        people: the gallery; what it is given here has the image reference
            `CAMERA@START/VIDEO#TRACK`, see `reference`.
        camera: name of the camera.
        video: name of the video. A second run of the same video, camera and start enrols nobody
            again: its tracks keep the identities that they have.
        model_fingerprint: of the model of the embeddings.
        calibration: of match probabilities; None: the gallery's.
        match_probability: least probability of a match.
        frame_rate: frames per second of a video of constant rate, for the times of rows; None:
            they have none.
        seconds: (n,) time of each box after the first frame of the video, such as
            `data.Video(…).times[tracks.frame - 1]`; they replace `frame_rate`.
        start: seconds at the first frame.

    Returns:
        One for each track, by number.

    Raises:
        InputError: no calibration, embeddings that do not fit, a gallery that holds other tracks of
            this video under the same numbers, or as `Gallery.enrol`.
    """
    check_finite(tracks.frame, embeddings=embeddings)
    if seconds is None and frame_rate is not None:
        seconds = (tracks.frame - 1) / frame_rate
    if seconds is not None:
        check_finite(tracks.frame, seconds=seconds)
    calibration = calibration or people.calibration
    if calibration is None:
        raise InputError(NOT_CALIBRATED)
    limits = Limits(match_probability, 0)
    means = track_embeddings(tracks, embeddings)
    spans = {
        number: (int(frames.min()), int(frames.max()))
        for number in means
        for frames in [tracks.frame[tracks.identity == number]]
    }
    images = {number: reference(camera, start, video, number) for number in means}
    held = _held(people, images, means)
    taken: dict[str, list[tuple[int, int]]] = {}
    result = []
    for number in sorted(means, key=lambda n: spans[n]):
        span, image = spans[number], images[number]
        own = image if image in held else None
        name, distance = _nearest(people, means[number], calibration, limits, span, taken, own)
        if name is None:
            name = _new(people)
        taken.setdefault(name, []).append(span)
        own_rows = tracks.identity == number
        time = None if seconds is None else start + float(np.asarray(seconds)[own_rows].min())
        if own is None:
            people.enrol(
                means[number][None],
                [name],
                [camera],
                [time],
                [image],
                model_fingerprint=model_fingerprint,
            )
        result.append(Identified(number, name, distance))
    return sorted(result, key=lambda found: found.track)


def reference(camera: str, start: float, video: str, track: int) -> str:
    """`CAMERA@START/VIDEO#TRACK`: no two tracks of a camera, a time and a video have the same.

    The camera is percent-encoded, so that the first `@`, the first `/` after it and the last `#`
    tell the four parts.
    """
    return f"{quote(normalized(str(camera)), safe='')}@{float(start):.17g}/{video}#{track}"


def _held(people: Gallery, images: dict[int, str], means: dict[int, np.ndarray]) -> set[str]:
    """The references that are enrolled, all with the embeddings that their tracks have now."""
    held = people.store.held(list(images.values()))
    numbers = [number for number, image in images.items() if image in held]
    if numbers:
        before = unit(people.store.embeddings([held[images[n]].image for n in numbers]))
        moved = np.linalg.norm(before - np.stack([means[n] for n in numbers]), axis=1)
        other = [number for number, far in zip(numbers, moved, strict=True) if far > SAME_LOOK]
        if other:
            raise InputError(
                "a track is enrolled once: the gallery holds others of this video, camera and "
                f"start under the numbers {', '.join(map(str, other))}, found with other "
                "detections or settings; give those again, or another gallery"
            )
    return {*held}


def _nearest(
    people: Gallery,
    embedding: np.ndarray,
    calibration: MatchCalibration,
    limits: Limits,
    span: tuple[int, int],
    taken: dict[str, list[tuple[int, int]]],
    own: str | None,
) -> tuple[str | None, float | None]:
    """Return the nearest person who is free during the span if it is a match, and the distance.

    A track that has a row of its `own` keeps the identity of that row.
    """
    count = people.count()
    if not count:
        return None, None
    hits = people.search(embedding[None], min(count, 100))[0]
    for hit in hits:
        if own is not None and normalized(hit.image) == normalized(own):
            return hit.identity, hit.distance
    free = [
        hit
        for hit in hits
        if all(last < span[0] or first > span[1] for first, last in taken.get(hit.identity, []))
    ]
    if not free:
        return None, None
    persons = people.persons()
    decision = decide(free, calibration, persons, count / persons, limits)
    return (free[0].identity, free[0].distance) if decision.verdict == MATCH else (None, None)


def _new(people: Gallery) -> str:
    known = people.identities()
    return next(name for n in count(1) if (name := f"person-{n}") not in known)
