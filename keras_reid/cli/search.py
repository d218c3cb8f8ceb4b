"""`python search.py --gallery=people.db enrol DIR|CSV`: find enrolled persons on images.

Subcommands, with the same --gallery and the same --model (default: the pretrained model):

    enrol DIR|CSV   one folder for each identity, or a table path,identity,camera[,time]. Unchanged
                    images are skipped; the same command resumes after an interruption
    query IMAGE…    match, possible match or no match, with a probability, and the nearest images;
                    or --description=upred=1,hat=0 without images
    verify A B      compares two images, or all images of two folders; or verify PAIRS.csv with
                    columns first,second. Needs no gallery
    list            names of all identities, each with its number of images
    remove ID       erases all images of an identity
    stats           numbers of images and identities, model, calibration
    calibrate       adapts the probabilities to the gallery; with --dataset and --data_dir fits
                    them on that data set first
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import data, evaluation, gallery, scale, visualize
from keras_reid.cli.options import Command, option
from keras_reid.cli.shared import GalleryOptions, check_outputs, progress, say, say_json
from keras_reid.cli.verify import Pair, verify
from keras_reid.errors import InputError, counted
from keras_reid.io import content_digest, new_file, read_table, table_path
from keras_reid.names import natural, repeated, resolved

Embedded = tuple[np.ndarray, dict[str, Any]]  # rows that are fit, and arguments of `Gallery.enrol`
CHUNK = 1024  # images that are embedded, and then durable, at a time


@dataclass(frozen=True, kw_only=True)
class SearchOptions(GalleryOptions):
    """Options of a search.

    Attributes:
        words: the subcommand and its arguments.
    """

    k: int = option("Images shown for each query.", 10, least=1)
    cameras: Sequence[str] | None = option("Look at these cameras alone.")
    not_cameras: Sequence[str] | None = option("Do not look at these cameras.")
    query_camera: str | None = option("Of the queries: its images are not looked at.")
    after: str | None = option("Look at images from this time on: seconds, or ISO 8601.")
    before: str | None = option("Look at images before this time.")
    rerank: str = option("A re-ranker for the shortlist, such as k_reciprocal.", "none")
    shortlist: int = option("Images that are fetched to re-rank.", 1000, least=1)
    description: Sequence[str] | None = option(
        "Attributes of the person, NAME=1 or NAME=0, for query; for runs of the recipe attributes."
    )
    html: str | None = option("New page with the pictures of queries and hits.")
    words: tuple[str, ...] = ()

    @property
    def attribute_names(self) -> list[str] | None:
        """Names of the attributes that the model predicts."""
        return self.settings.get("attribute_names")


class QueryResult(NamedTuple):
    """Result of a query.

    Attributes:
        image: path of the query image, or the description.
        identity: name of the match or possible match, else None.
        hits: images of the gallery, nearest first.
        decision: about the nearest person; None for a description, and without a calibration.
        text: the printed answer.
    """

    image: str
    identity: str | None
    hits: list[gallery.SearchResult]
    decision: gallery.Decision | None
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        verdict, probability = self.decision or (None, None)
        return {
            "image": self.image,
            "identity": self.identity,
            "verdict": verdict,
            "probability": probability,
            "hits": [hit._asdict() for hit in self.hits],
        }


def search(options: SearchOptions) -> "SearchOutput":
    """Run the subcommand that the first word names, print its result and return it.

    Returns:
        `enrol`: the counts, an `Enrolment`. `query`: a `QueryResult` for each image, or one for a
        description. `verify`: a `Pair` for each two images. `list`: the number of images of each
        identity, a dict. `remove`: the number of erased images. `stats`: the facts about the
        gallery, a dict. `calibrate`: the new `keras_reid.evaluation.MatchCalibration`.

    Raises:
        InputError: unknown or missing words, or a gallery or images that do not exist.
    """
    if not options.words or options.words[0] not in COMMANDS:
        raise InputError(
            f"the first word is one of {', '.join(COMMANDS)}: received "
            f"{' '.join(options.words[:1])!r}"
        )
    name, *arguments = options.words
    least, most = COUNTS[name]
    if not least <= len(arguments) <= most:
        raise InputError(f"{name} takes {USES[name]}: received {' '.join(arguments) or 'nothing'}")
    if name == "query" and bool(arguments) == bool(options.description):
        raise InputError(
            "a query is images or a description: received "
            f"{counted(len(arguments), 'image')} and "
            f"--description={','.join(options.description or ())!r}"
        )
    check_outputs(html=options.html)
    options.limits  # noqa: B018  refuses limits before anything is embedded
    if options.html and name != "query":
        raise InputError(f"--html writes the page of a query, got {name}. Leave it out.", "html")
    if name in ("query", "list", "remove", "stats", "calibrate"):
        gallery.check_exists(options.uri)
    return COMMANDS[name](options, arguments)


def enrol(options: SearchOptions, arguments: list[str]) -> "Enrolment":
    """Adds the images of a folder or list, embedded here, or the embeddings of `embed.py`."""
    source = Path(arguments[0])
    return (_enrol_shards if scale.Shards.holds(source) else _enrol_images)(options, source)


@dataclass
class Enrolment:
    """Counts of an enrolment, and the files that are left out as unfit.

    Attributes:
        added: new images.
        replaced: images that were embedded again because their content changed.
        moved: images with another identity, camera or time than before.
        kept: images that were enrolled before, unchanged.
        unfit: paths of the skipped files.
    """

    added: int = 0
    replaced: int = 0
    moved: int = 0
    kept: int = 0
    unfit: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"enrolled {counted(self.added, 'image')}, {self.replaced:,} embedded again (changed), "
            f"{self.moved:,} moved (another identity, camera or time), {self.kept:,} already "
            f"enrolled, {len(self.unfit):,} skipped (unreadable)"
        )

    def update(
        self,
        people: gallery.Gallery,
        labels: dict[str, np.ndarray | None],
        digests: np.ndarray,
        fingerprint: str,
        embed: Callable[[np.ndarray], Embedded],
    ) -> None:
        """Add new images, embed changed ones again, and move those with other labels.

        Args:
            people: the gallery.
            labels: images, identities, cameras and times (n,), as of `Gallery.enrol`.
            digests: (n,) digests of the content.
            fingerprint: of the model.
            embed: from rows to the rows of fit images, and their arguments of `Gallery.enrol`.
        """
        changes = people.changes(**_rows(labels, np.arange(len(digests))), digests=digests.tolist())
        rows = np.flatnonzero(changes.new | changes.replaced)
        values: dict[str, Any] = {}
        if len(rows):
            fit, values = embed(rows)
            assert labels["images"] is not None
            self.unfit += labels["images"][np.setdiff1d(rows, fit)].tolist()
            rows = fit
        if len(rows):
            people.enrol(
                **_rows(labels, rows),
                **values,
                model_fingerprint=fingerprint,
                existing="replace",
                digests=digests[rows].tolist(),
            )
        moved = np.setdiff1d(np.flatnonzero(changes.moved), rows)
        if len(moved):
            people.relabel(**_rows(labels, moved))
        self.added += int(changes.new[rows].sum())
        self.replaced += int(changes.replaced[rows].sum())
        self.moved += int(changes.moved.sum())
        self.kept += int((~(changes.new | changes.replaced | changes.moved)).sum())

    def tell(self, options: SearchOptions, people: gallery.Gallery) -> None:
        """Print the counts, the skipped files and the size of the gallery."""
        say(str(self))
        for path in self.unfit[:10]:
            say(f"  skipped: {path} {data.unfit(path) or 'cannot be decoded'}")
        images, identities = people.count(), len(people.identities())
        held = f"{counted(images, 'image')} of {counted(identities, 'identity')}"
        say(f"{options.uri}: {held}")
        if people.calibration is not None and (found := people.calibrate()) is not None:
            say(f"match probabilities adapted to {counted(found.after.images, 'enrolled image')}")


def _rows(labels: dict[str, np.ndarray | None], rows: np.ndarray) -> dict[str, Any]:
    return {name: None if all_ is None else all_[rows].tolist() for name, all_ in labels.items()}


def _enrol_images(options: SearchOptions, source: Path) -> Enrolment:
    options.check_one_model()
    images, times = _people(source)
    _check_once(source, images.path.tolist())
    names = options.attribute_names
    embed = options.embedder(also=("attribute_probabilities",) if names else ())
    done = Enrolment()
    tell = progress("enrolling")
    with gallery.open(options.uri) as people:
        options.calibrated(people)
        for start in range(0, len(images), CHUNK):
            block = images[start : start + CHUNK]

            def embedded(rows: np.ndarray, block: data.PersonImages = block) -> Embedded:
                rows = rows[data.usable(block.path[rows], progress("reading images"))]
                if not len(rows):
                    return rows, {}
                outputs = embed(block[rows])
                if not names:
                    return rows, {"embeddings": outputs}
                probabilities = outputs["attribute_probabilities"]
                described = {"attributes": probabilities, "attribute_names": names}
                return rows, {"embeddings": outputs["embedding"], **described}

            labels = {
                "images": block.path,
                "identities": block.identity,
                "cameras": block.camera,
                "times": np.array([times.get(path) for path in block.path.tolist()], float),
            }
            digests = np.array([content_digest(path) for path in block.path.tolist()])
            done.update(people, labels, digests, options.fingerprint, embedded)
            tell(min(start + CHUNK, len(images)), len(images))
        done.tell(options, people)
    return done


def _check_once(source: Path, paths: Iterable[str]) -> None:
    """Raise if a file is listed twice, before the first image is enrolled."""
    twice = repeated(paths)
    if twice is not None:
        raise InputError(f"{source} must list each image once, got {twice} twice. Remove one.")


def _enrol_shards(options: SearchOptions, source: Path) -> Enrolment:
    shards = scale.Shards(source)
    listed = map(shards.listed, shards.numbers)
    _check_once(source, (path for table in listed for path in table["path"].to_pylist()))
    if options.model_name:
        raise InputError(f"{source} holds embeddings: leave --model out")
    done, seen = Enrolment(), 0
    tell = progress("enrolling")
    with gallery.open(options.uri) as people:
        for number, shard in zip(shards.numbers, shards, strict=True):
            if shard.identity is None:
                raise InputError(
                    f"who is enrolled has a name: the images of {source} have none; embed a table "
                    "with a column identity"
                )
            labels = {"images": shard.path, "identities": shard.identity, "cameras": shard.camera}
            digests = [
                digest or blake2b(x, digest_size=16).hexdigest()  # of version 0.2.0
                for digest, x in zip(shards.digests(number), shard.embedding, strict=True)
            ]

            def embedded(rows: np.ndarray, shard: scale.Shard = shard) -> Embedded:
                rows = rows[shard.decodes[rows]]
                return rows, {"embeddings": shard.embedding[rows]}

            done.update(people, labels, np.array(digests), shards.about["fingerprint"], embedded)
            seen += len(shard.path)
            tell(seen, len(shards))
        done.tell(options, people)
    return done


def query(options: SearchOptions, arguments: list[str]) -> list[QueryResult]:
    """Searches for images, or for a description."""
    where = gallery.Filter(
        options.cameras,
        options.not_cameras,
        gallery.seconds(options.after),
        gallery.seconds(options.before),
    )
    if options.description:
        return _show(options, [_described(options, where)], {})
    options.check_one_model()
    images = data.query_images(arguments, progress=progress("reading images"))
    embeddings = options.embedder()(images)
    with gallery.open(options.uri) as people:
        search: dict[str, Any] = {
            "k": min(options.k, max(1, people.count())),
            "filter": where,
            "query_cameras": options.query_camera and [options.query_camera] * len(arguments),
            "model_fingerprint": options.fingerprint,
            "rerank": options.rerank,
            "shortlist": max(options.k, options.shortlist),
        }
        if options.calibrated(people) is None:
            found = people.search(embeddings, **search)
            results = [_undecided(*pair) for pair in zip(arguments, found, strict=True)]
        else:
            decided = people.identify(embeddings, limits=options.limits, **search)
            results = [
                QueryResult(image, one.identity, one.hits, one.decision, str(one))
                for image, one in zip(arguments, decided, strict=True)
            ]
        found_by = people.store.stats()
    return _show(options, results, found_by)


def _undecided(image: str, hits: list[gallery.SearchResult]) -> QueryResult:
    """Result without a decision, by a model that has no calibration."""
    nearest = hits[0].identity if hits else None
    return QueryResult(image, None, hits, None, f"nearest: {nearest} (not calibrated)")


def _described(options: SearchOptions, where: gallery.Filter) -> QueryResult:
    """Images that fit the description best."""
    wanted = {}
    for text in options.description or ():
        name, _, value = text.partition("=")
        if value not in ("0", "1"):
            raise InputError(f"a description is NAME=1 or NAME=0, with commas: received {text!r}")
        wanted[name] = value == "1"
    with gallery.open(options.uri) as people:
        hits = people.describe(wanted, options.k, where)
    words = ",".join(options.description or ())
    return QueryResult(words, None, hits, None, f"best fits of {words}")


def _show(
    options: SearchOptions, results: list[QueryResult], found_by: dict[str, Any]
) -> list[QueryResult]:
    """Print the results, write the page and return the results."""
    plain = [result.to_dict() for result in results]
    if options.output == "json":
        say_json({**options.limits_by_flag, "queries": plain})
    else:
        if "recall" in found_by:
            say(f"approximate search, recall {found_by['recall']:.4f} on a sample of the gallery")
        _print(results)
    if options.html:
        described = bool(options.description)
        pages = [
            {**values, "answer": result.text, "described": described}
            for values, result in zip(plain, results, strict=True)
        ]
        with new_file(options.html) as file:
            file.write_text(visualize.search_page(pages), encoding="utf-8")
    return results


def _print(results: list[QueryResult]) -> None:
    for result in results:
        say(f"{result.image}: {result.text}")
        for rank, hit in enumerate(result.hits, start=1):
            camera = f"camera {hit.camera}" if hit.camera else ""
            say(f"{rank:>4}  {hit.distance:.4f}  {hit.identity:<12} {camera:<10} {hit.image}")


def identities(options: SearchOptions, arguments: list[str]) -> dict[str, int]:
    """Number of images of each identity, in natural order of the names."""
    with gallery.open(options.uri) as people:
        counts = people.identities()
    counts = {name: counts[name] for name in sorted(counts, key=natural)}
    if options.output == "json":
        say_json(counts)
        return counts
    width = max((len(f"{count:,}") for count in counts.values()), default=0)
    for name, count in counts.items():
        say(f"{count:>{width},}  {name}")
    return counts


def remove(options: SearchOptions, arguments: list[str]) -> int:
    """Erases a person."""
    with gallery.open(options.uri) as people:
        removed = people.remove(arguments[0])
    if not removed:
        raise InputError(f"identity {arguments[0]!r} not found in {options.uri}. See list.")
    say(f"erased {counted(removed, 'image')} of {arguments[0]}")
    return removed


def stats(options: SearchOptions, arguments: list[str]) -> dict[str, Any]:
    """Numbers of rows and identities, model and calibration of the gallery."""
    with gallery.open(options.uri) as people:
        values = people.stats()
    if options.output == "json":
        say_json(values)
        return values
    for key, value in values.items():
        shown = value
        if key == "calibration" and value is not None:
            shown = value["source"]
            if value["persons"]:
                shown += f", adapted to {value['images']:,} images of {value['persons']:,} persons"
        say(f"{key:<12} {shown}")
    return values


def calibrate(options: SearchOptions, arguments: list[str]) -> evaluation.MatchCalibration:
    """Fit match probabilities on a data set if there is one, and adapt them to the gallery."""
    options.check_one_model()
    with gallery.open(options.uri) as people:
        _check_model(options, people)  # before minutes of embedding
        if options.dataset is not None:
            people.calibration = _fitted(options)
        elif options.calibrated(people) is None:
            raise InputError(gallery.NOT_CALIBRATED)
        found = people.calibrate()
        calibration = people.calibration
    assert calibration is not None
    say(f"match probabilities: {calibration.source}")
    if found is None:
        say(
            f"{options.uri} has too few images to adapt them: at least 5 persons with 2 images "
            "are required"
        )
    else:
        say(f"adapted to {found.after.images:,} images of {found.after.persons:,} persons")
        say(found.table(options.limits))
    return calibration


def _fitted(options: SearchOptions) -> evaluation.MatchCalibration:
    """Match probabilities of a data set."""
    dataset = options.dataset_of(options.dataset, options.data_dir, "probabilities need images")
    parts = [part for part in (dataset.query, dataset.gallery) if part is not None]
    images = data.joined(*(parts or dataset.parts().values()))
    images = data.readable(images[~images.distractor], progress=progress("reading images"))
    labels = images.per_tracklet()
    embeddings = options.embedder()(images)
    return evaluation.fit_calibration([(embeddings, labels.identity)], str(options.data_dir))


def _check_model(options: SearchOptions, people: gallery.Gallery) -> None:
    """Raise if the gallery has embeddings of another model."""
    if people.fingerprint not in (None, options.fingerprint):
        raise InputError(
            f"a calibration is for embeddings of one model: {options.uri} is of "
            f"{people.fingerprint}, this one is {options.fingerprint}"
        )


def _people(path: Path) -> tuple[data.PersonImages, dict[str, float]]:
    """Return all images of a folder or table, by resolved paths, and the known times."""
    if not path.exists():
        raise InputError(f"people are a folder or a CSV file: {path} does not exist")
    dataset = data.load("folder" if path.is_dir() else "csv", str(path.absolute()))
    images = data.joined(*dataset.parts().values())
    images = images[~images.distractor]
    images = replace(images, path=np.array([resolved(path) for path in images.path.tolist()]))
    return images, {} if path.is_dir() else _times(path.absolute())


def _times(table: Path) -> dict[str, float]:
    """Return seconds by resolved path, of the rows that have a time."""
    return {
        resolved(table_path(table, line.values["path"])): found
        for line in read_table(table, ("path",), ("time",))[1]
        if (found := gallery.seconds(line.values.get("time"))) is not None
    }


SearchOutput = (
    Enrolment | list[QueryResult] | list[Pair] | dict[str, Any] | int | evaluation.MatchCalibration
)
COMMANDS: dict[str, Callable[[SearchOptions, list[str]], SearchOutput]] = {
    "enrol": enrol,
    "query": query,
    "verify": verify,
    "list": identities,
    "remove": remove,
    "stats": stats,
    "calibrate": calibrate,
}
MANY = 10_000
COUNTS = {
    "enrol": (1, 1),
    "query": (0, MANY),
    "verify": (1, 2),
    "list": (0, 0),
    "remove": (1, 1),
    "stats": (0, 0),
    "calibrate": (0, 0),
}
USES = {
    "enrol": "a folder, a CSV file, or a folder of embed.py",
    "query": f"1 to {MANY:,} images, or none and --description",
    "verify": "two images, two folders, or a CSV file with columns first,second",
    "list": "no more words",
    "remove": "one identity",
    "stats": "no more words",
    "calibrate": "no more words, but --dataset and --data_dir",
}

run = Command(
    search,
    SearchOptions,
    "model",
    "gallery",
    "dataset",
    "data_dir",
    "k",
    "cameras",
    "after",
    "before",
    "output",
    words=True,
)
