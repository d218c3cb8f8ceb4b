"""`python search.py --gallery=people.db enrol DIR|CSV`: who is this?

Then `query IMAGE…`, `list`, `remove ID`, `stats` and `calibrate`, with the same --gallery and the
same --model, by default the pretrained model:

    enrol DIR|CSV   one folder for each identity, or a table path,identity,camera[,time]. Enrolled
                    images are left alone, unless their content, identity, camera or time changed.
                    The same command resumes after an interruption
    query IMAGE…    who is nearest, and "unknown" beyond the gallery's threshold; without images,
                    --description=upred=1,hat=0 looks for a description
    list            names of all identities, each with its number of images
    remove ID       erases all images of an identity
    stats           what the gallery holds
    calibrate       chooses the threshold at --far on --dataset and keeps it in the gallery
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import data, evaluation, gallery, scale, visualize
from keras_reid.cli.options import Command, option
from keras_reid.cli.shared import ModelOptions, check_outputs, progress, say, say_json
from keras_reid.errors import InputError, counted
from keras_reid.files import natural, new_file
from keras_reid.foreign import content_digest, read_table, table_path
from keras_reid.names import expanded, repeated, resolved

Embedded = tuple[np.ndarray, dict[str, Any]]  # rows that are fit, and arguments of `Gallery.enrol`
CHUNK = 1024  # images that are embedded, and then durable, at a time


@dataclass(frozen=True, kw_only=True)
class SearchOptions(ModelOptions):
    """Where it is looked, for whom.

    Attributes:
        words: what is done, and to what.
    """

    gallery: str | None = option(
        "people.db (Milvus Lite), faiss:FILE, or http://HOST:PORT (Milvus)."
    )
    k: int = option("Images shown for each query.", 10, least=1)
    cameras: Sequence[str] | None = option("Look at these cameras alone.")
    not_cameras: Sequence[str] | None = option("Do not look at these cameras.")
    query_camera: str | None = option("Of the queries: its images are not looked at.")
    after: str | None = option("Look at images from this time on: seconds, or ISO 8601.")
    before: str | None = option("Look at images before this time.")
    threshold: float | None = option(
        "Distance of a known person; default: the gallery's, of one without that of --pretrained."
    )
    rerank: str = option("A re-ranker for the shortlist, such as k_reciprocal.", "none")
    shortlist: int = option("Images that are fetched to re-rank.", 1000, least=1)
    description: Sequence[str] | None = option(
        "Of query: NAME=1 or NAME=0, the attributes of whom is looked for; of runs that know them."
    )
    output: str = option("What is printed.", "table", choices=("table", "json"))
    html: str | None = option("New page with the pictures of queries and hits.")
    far: float = option(
        "Of calibrate: rate of non-mated probes taken for somebody.", 0.01, least=0, most=1
    )
    words: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        """The gallery."""
        if self.gallery is None:
            raise InputError("a search has a gallery: give --gallery, such as --gallery=people.db")
        if self.gallery == "memory:":
            raise InputError("memory: ends with the command: name a gallery that stays, people.db")
        return self.gallery

    @property
    def attribute_names(self) -> list[str] | None:
        """Of the attributes that the model of the run predicts."""
        return self.settings.get("attribute_names")


class QueryResult(NamedTuple):
    """Result of a query.

    Attributes:
        image: path of the query image, or the description.
        identity: identity of the nearest image, or None if it is beyond the threshold.
        hits: images of the gallery, nearest first.
        threshold: maximum distance for a match; None: every distance is a match.
        described: True for a description.
    """

    image: str
    identity: str | None
    hits: list[gallery.SearchResult]
    threshold: float | None
    described: bool = False

    @classmethod
    def of(
        cls, image: str, hits: list[gallery.SearchResult], threshold: float | None
    ) -> "QueryResult":
        """Result with the identity of the nearest hit, if it is within the threshold."""
        match = bool(hits) and (threshold is None or hits[0].distance <= threshold)
        return cls(image, hits[0].identity if match else None, hits, threshold)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {
            "image": self.image,
            "identity": self.identity,
            "hits": [hit._asdict() for hit in self.hits],
        }
        return values | ({"described": True} if self.described else {})


def search(options: SearchOptions) -> "SearchOutput":
    """Run the subcommand that the first word names, print its result and return it.

    Returns:
        `enrol`: the counts, an `Enrolment`. `query`: a `QueryResult` for each image, or one for a
        description. `list`: the number of images of each identity, a dict. `remove`: the number of
        erased images. `stats`: the facts about the gallery, a dict. `calibrate`: the new
        `keras_reid.evaluation.Threshold`.

    Raises:
        InputError: unknown or missing words, or a gallery or images that do not exist.
    """
    if not options.words or options.words[0] not in COMMANDS:
        raise InputError(
            f"the first word is one of {', '.join(COMMANDS)}: received "
            f"{' '.join(options.words[:1])!r}"
        )
    name, *arguments = options.words
    uri = options.uri
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
    if name in ("query", "list", "remove", "stats"):
        check_exists(uri)
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
        for start in range(0, len(images), CHUNK):
            block = images[start : start + CHUNK]

            def embedded(rows: np.ndarray, block: data.PersonImages = block) -> Embedded:
                rows = rows[_fit(block.path[rows])]
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
        options.cameras, options.not_cameras, seconds(options.after), seconds(options.before)
    )
    if options.description:
        return _show(options, [_described(options, where)], None, {})
    options.check_one_model()
    embeddings = options.embedder()(query_images(arguments, arguments))
    with gallery.open(options.uri) as people:
        found = people.search(
            embeddings,
            min(options.k, max(1, people.count())),
            where,
            query_cameras=None
            if options.query_camera is None
            else [options.query_camera] * len(arguments),
            model_fingerprint=options.fingerprint,
            rerank=options.rerank,
            shortlist=max(options.k, options.shortlist),
        )
        kept, found_by = people.threshold, people.store.stats()
    threshold = options.threshold
    if threshold is None:
        # JSON says it itself, and nothing else stands before it.
        known = kept or options.shipped_threshold(tell=options.output != "json")
        threshold = None if known is None else float(known)
    results = [QueryResult.of(*pair, threshold) for pair in zip(arguments, found, strict=True)]
    return _show(options, results, threshold, found_by)


def query_images(paths: Sequence[str], names: Sequence[str]) -> data.PersonImages:
    """The images at these paths, all fit to be looked for; of one that is not its name is said."""
    for path, name, fit in zip(paths, names, _fit(np.array(paths)), strict=True):
        if not fit:
            reason = data.unfit(path) or "cannot be decoded"
            raise InputError(f"a query is an image of a person: {name} {reason}; name another")
    return data.PersonImages(np.array(paths), np.full(len(paths), "query"), None)


def _described(options: SearchOptions, where: gallery.Filter) -> QueryResult:
    """What fits the description best."""
    wanted = {}
    for text in options.description or ():
        name, _, value = text.partition("=")
        if value not in ("0", "1"):
            raise InputError(f"a description is NAME=1 or NAME=0, with commas: received {text!r}")
        wanted[name] = value == "1"
    with gallery.open(options.uri) as people:
        hits = people.describe(wanted, options.k, where)
    return QueryResult.of(",".join(options.description or ()), hits, None)._replace(described=True)


def _show(
    options: SearchOptions,
    results: list[QueryResult],
    threshold: float | None,
    found_by: dict[str, Any],
) -> list[QueryResult]:
    """Print the results, write the page and return the results."""
    plain = [result.to_dict() for result in results]
    if options.output == "json":
        say_json({"threshold": threshold, "queries": plain})
    else:
        if "recall" in found_by:
            say(f"approximate search, recall {found_by['recall']:.4f} on a sample of the gallery")
        _print(plain, threshold)
    if options.html:
        pages = [{**result, "answer": _answer(result, threshold)} for result in plain]
        with new_file(options.html) as file:
            file.write_text(visualize.search_page(pages, threshold), encoding="utf-8")
    return results


def _answer(result: dict[str, Any], threshold: float | None) -> str:
    described = result["image"] if result.get("described") else ""
    return answer(result["hits"], threshold, described)


def answer(hits: Sequence[dict[str, Any]], threshold: float | None, described: str = "") -> str:
    """In words, who was found: for an image the nearest, if near enough, or whoever fits best."""
    if described:
        return f"best fits of {described}"
    if not hits or (threshold is not None and hits[0]["distance"] > threshold):
        return "unknown"
    name = str(hits[0]["identity"])
    return f"nearest: {name}" if threshold is None else name


def _print(results: list[dict[str, Any]], threshold: float | None) -> None:
    if threshold is None and not any(result.get("described") for result in results):
        say("this gallery has no threshold, so nobody is unknown: see calibrate, or --threshold")
    for result in results:
        say(f"{result['image']}: {_answer(result, threshold)}")
        for rank, hit in enumerate(result["hits"], start=1):
            camera = f"camera {hit['camera']}" if hit["camera"] else ""
            say(
                f"{rank:>4}  {hit['distance']:.4f}  {hit['identity']:<12} {camera:<10} "
                f"{hit['image']}"
            )


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
        raise InputError(f"nobody in {options.uri} is named {arguments[0]!r}: see the identities")
    say(f"erased {counted(removed, 'image')} of {arguments[0]}")
    return removed


def stats(options: SearchOptions, arguments: list[str]) -> dict[str, Any]:
    """What the gallery holds."""
    with gallery.open(options.uri) as people:
        values = people.stats()
    if options.output == "json":
        say_json(values)
        return values
    for key, value in values.items():
        shown = value
        if key == "threshold" and value is not None:
            shown = f"{value['value']:.4f}, at FAR {value['far']:g} over {value['impostors']:,}"
        say(f"{key:<12} {shown}")
    return values


def calibrate(options: SearchOptions, arguments: list[str]) -> evaluation.Threshold:
    """Half of the identities are enrolled, the other half of the queries are non-mated."""
    options.check_one_model()
    dataset = options.dataset_of(
        options.dataset, options.data_dir, "a threshold is chosen on images"
    )
    if dataset.query is None or dataset.gallery is None:
        raise InputError(
            f"a threshold needs query and gallery images: {options.data_dir!r} has none"
        )
    _check_model(options)  # before minutes of embedding
    names = np.unique(dataset.query.identity)
    non_mated = np.random.default_rng(0).permutation(names)[: len(names) // 2]
    enrolled = dataset.gallery[~np.isin(dataset.gallery.identity, non_mated)]
    embed = options.embedder()
    tell = progress("reading images")
    probes, enrolled = (
        data.readable(images, progress=tell) for images in (dataset.query, enrolled)
    )
    compared = embed(probes), embed(enrolled)
    protocol = options.protocol_of(probes, options.settings.get("protocol"))
    labels = probes.per_tracklet(), enrolled.per_tracklet()
    result = evaluation.open_set(compared, *labels, protocol)
    say(str(result))
    threshold = result.threshold_at_far(options.far)
    with gallery.open(options.uri) as people:
        people.threshold = threshold
    say(
        f"threshold {threshold.value:.4f} at FAR {threshold.far:g} (measured "
        f"{threshold.measured_far:g} over {threshold.impostors:,} non-mated probes) kept in "
        f"{options.uri}; the rate grows with the gallery, which had "
        f"{counted(len(enrolled), 'image')} here"
    )
    return threshold


def _check_model(options: SearchOptions) -> None:
    """A threshold belongs to the model whose embeddings the gallery holds."""
    with gallery.open(options.uri) as people:
        known = people.fingerprint
    if known not in (None, options.fingerprint):
        raise InputError(
            f"a threshold is for embeddings of one model: {options.uri} is of {known}, this one "
            f"is {options.fingerprint}"
        )


def check_exists(uri: str) -> None:
    """A gallery that is asked, and not filled, is there: a slip of the pen must not make one."""
    if "://" in uri:
        return
    path = expanded(uri.removeprefix("faiss:") + (".rows" if uri.startswith("faiss:") else ""))
    if not path.exists():
        raise InputError(f"there is no gallery at {path}: enrol images first, or check the path")


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
        if (found := seconds(line.values.get("time"))) is not None
    }


def seconds(text: str | None) -> float | None:
    """Seconds since 1970 of a number or of ISO 8601, local time unless it names a zone."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InputError(
            f"times are seconds since 1970 or ISO 8601, 2026-01-31T12:00: received {text!r}"
        ) from None


def _fit(paths: np.ndarray) -> np.ndarray:
    """Mask of the files that are images of a usable size."""
    fit = np.array([data.unfit(path) is None for path in paths], bool)
    fit[fit] = data.decodable(paths[fit], progress("reading images"))
    return fit


SearchOutput = Enrolment | list[QueryResult] | dict[str, Any] | int | evaluation.Threshold
COMMANDS: dict[str, Callable[[SearchOptions, list[str]], SearchOutput]] = {
    "enrol": enrol,
    "query": query,
    "list": identities,
    "remove": remove,
    "stats": stats,
    "calibrate": calibrate,
}
MANY = 10_000
COUNTS = {
    "enrol": (1, 1),
    "query": (0, MANY),
    "list": (0, 0),
    "remove": (1, 1),
    "stats": (0, 0),
    "calibrate": (0, 0),
}
USES = {
    "enrol": "a folder, a CSV file, or a folder of embed.py",
    "query": f"1 to {MANY:,} images, or none and --description",
    "list": "no more words",
    "remove": "one identity",
    "stats": "no more words",
    "calibrate": "no more words, but --dataset, --data_dir and --far",
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
