"""Events of enrolled persons who appear in a stream or leave it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from keras_reid.gallery import LIMITS, MATCH, Gallery, Limits
from keras_reid.gallery.decision import percent
from keras_reid.nearest.arrays import unit
from keras_reid.tracking.crops import BestCrops
from keras_reid.tracking.pipeline import FrameTracks
from keras_reid.tracking.tracker import Track

APPEARS, LEAVES = "appears", "leaves"


class WatchEvent(NamedTuple):
    """Appearance or departure of an enrolled person.

    Attributes:
        time: time of the frame as ISO 8601 in UTC.
        camera: name of the camera.
        person: identity in the gallery.
        event: "appears" or "leaves".
        probability: probability of the match.
        track: number of the track.
        crop: file of the best crop so far; None if no crops are kept.
    """

    time: str
    camera: str
    person: str
    event: str
    probability: float
    track: int
    crop: str | None

    def __str__(self) -> str:
        where = f"{self.time} {self.camera}: {self.person} {self.event}"
        text = f"{where} ({percent(self.probability)}), track {self.track}"
        return text if self.crop is None else f"{text}, {self.crop}"


@dataclass(eq=False)
class _Presence:
    probability: float
    tracks: set[int] = field(default_factory=set)
    seconds: float = 0.0  # of the last detection


class Watch:
    """Search for each track in a gallery, without enrolling anyone.

    The mean embedding of a track is compared when the track is confirmed, and again after 2, 4, 8,
    … times as many detections, until it is a match. A person appears with the first track that
    matches, and leaves at the end of the last one, at the time of its last detection.

    Args:
        people: gallery with enrolled persons and a calibration.
        camera: name of the camera in the events.
        model_fingerprint: fingerprint of the model of the embeddings.
        limits: probabilities of a match and of a possible match.
        begin: time of the first frame, in seconds since 1970.
        crops: best crops of the tracks; None: events have no crop.

    Raises:
        InputError: an empty gallery, one of another model, or without a calibration.
    """

    def __init__(
        self,
        people: Gallery,
        camera: str,
        *,
        model_fingerprint: str,
        limits: Limits = LIMITS,
        begin: float = 0.0,
        crops: BestCrops | None = None,
    ) -> None:
        self.people, self.camera, self.begin, self.crops = people, camera, begin, crops
        self._search: dict[str, Any] = {"limits": limits, "model_fingerprint": model_fingerprint}
        people.required_calibration()
        probe = np.ones((1, people.width or 1))  # raises here, not at the first person
        people.search(probe, 1, model_fingerprint=model_fingerprint)
        self._counts: dict[int, int] = {}  # detections of each track
        self._due: dict[int, int] = {}  # detections at the next search
        self._names: dict[int, str] = {}
        self._present: dict[str, _Presence] = {}

    def update(self, frame: FrameTracks) -> list[WatchEvent]:
        """Return the events of a frame.

        Raises:
            InputError: see `Gallery.identify`.
        """
        events = self._appearances(frame)
        for number, _ in frame.active:
            if name := self._names.get(number):
                self._present[name].seconds = frame.seconds
        for number in frame.ended:
            events += self._end(number)
        return events

    def _appearances(self, frame: FrameTracks) -> list[WatchEvent]:
        searched: list[tuple[int, Track]] = []
        for number, track in frame.active:
            count = self._counts[number] = self._counts.get(number, 0) + 1
            if number not in self._names and count >= self._due.get(number, 1):
                self._due[number] = 2 * count
                searched.append((number, track))
        if not searched:
            return []
        means = unit(np.stack([np.mean(track.embeddings, axis=0) for _, track in searched]))
        events = []
        results = self.people.identify(means, **self._search)
        for (number, _), result in zip(searched, results, strict=True):
            if result.decision.verdict != MATCH:
                continue
            name = self._names[number] = result.hits[0].identity
            if name not in self._present:
                self._present[name] = _Presence(result.decision.probability, {number})
                events.append(self._event(number, name, APPEARS, frame.seconds))
            self._present[name].tracks.add(number)
        return events

    def _end(self, number: int) -> list[WatchEvent]:
        """Forget a track; return the event if it was the last one of its person."""
        self._counts.pop(number, None)
        self._due.pop(number, None)
        name = self._names.pop(number, None)
        if name is None:
            return []
        presence = self._present[name]
        presence.tracks.discard(number)
        if presence.tracks:
            return []
        event = self._event(number, name, LEAVES, presence.seconds)
        del self._present[name]
        return [event]

    def _event(self, number: int, name: str, event: str, seconds: float) -> WatchEvent:
        moment = datetime.fromtimestamp(self.begin + seconds, UTC)
        crop = self.crops and self.crops.best(number)
        return WatchEvent(
            moment.isoformat(timespec="milliseconds"),
            self.camera,
            name,
            event,
            round(self._present[name].probability, 4),
            number,
            None if crop is None else str(crop),
        )
