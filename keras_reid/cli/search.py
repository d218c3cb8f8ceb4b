"""`keras-reid search SUBCOMMAND --gallery=people.db`: enrol persons, and find them in images.

Subcommands use the model --model, by default the pretrained one. All but verify need --gallery.

    enrol DIR|CSV   Enrol images: one folder for each identity, or a table
                    path,identity,camera[,time]. Unchanged images are skipped: repeat the
                    command after an interruption.
    query IMAGE…    Print match, possible match or no match with a probability, and the nearest
                    images. A folder stands for its images. Without images:
                    --description=upred=1,hat=0.
    verify A B      Compare two images, or all images of two folders. verify PAIRS.csv compares
                    the pairs of a table first,second.
    list            Print the names of all identities, each with its number of images.
    remove ID       Erase an identity from the gallery. The image files stay.
    stats           Print the numbers of images and identities, the model and the calibration.
    calibrate       Adapt the probabilities to the gallery. With --dataset and --data_dir, fit
                    them to that data set first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from keras_reid import evaluation, gallery, reranking
from keras_reid.cli import search_results as results
from keras_reid.cli.calibrate import calibrate
from keras_reid.cli.enrol import Enrolment, enrol
from keras_reid.cli.options import Command, option, reject
from keras_reid.cli.photos import GalleryPhotoOptions
from keras_reid.cli.search_results import SUFFIXES, QueryResult
from keras_reid.cli.startup import import_keras
from keras_reid.cli.terminal import check_outputs, say
from keras_reid.cli.verify import Pair, compare_pairs, image_paths
from keras_reid.errors import InputError, counted, invalid
from keras_reid.names import natural


@dataclass(frozen=True, kw_only=True)
class SearchOptions(GalleryPhotoOptions):
    """Options of a search.

    Attributes:
        words: the subcommand and its arguments.
    """

    unused: ClassVar[str] = "protocol"

    top_k: int = option("Number of images shown for each query.", 10, least=1)
    cameras: Sequence[str] | None = option("Cameras to search. Default: all.")
    not_cameras: Sequence[str] | None = option("Cameras to exclude.")
    query_camera: str | None = option("Camera of the queries. Its images are excluded.")
    after: str | None = option(
        "Earliest time of the searched images: seconds since 1970, or ISO 8601."
    )
    before: str | None = option("End of the searched times, not included, in the form of --after.")
    rerank: str = option("Re-ranker of the shortlist, such as k_reciprocal.", "none")
    shortlist: int = option("Number of images to re-rank.", 1000, least=1)
    description: Sequence[str] | None = option(
        "Attributes of the person to find, such as upred=1,hat=0, for the subcommand query. The "
        "model must be a run of --recipe=attributes."
    )
    format: str | None = option(
        "Format of the results of query, verify, list and stats. Only query writes html, a page "
        "with pictures. Default: by the suffix of --out, else table.",
        choices=tuple(SUFFIXES.values()),
        topic="output",
    )
    out: str | None = option(
        f"New file for the results: {', '.join(SUFFIXES)}. Default: they are printed.",
        topic="output",
    )
    words: tuple[str, ...] = ()


SearchOutput = (
    Enrolment | list[QueryResult] | list[Pair] | dict[str, Any] | int | evaluation.MatchCalibration
)


def search(options: SearchOptions) -> SearchOutput:
    """Run the subcommand `options.words[0]`, print its result and return it.

    Returns:
        `enrol`: the counts, an `Enrolment`. `query`: a `QueryResult` for each image, or one for a
        description. `verify`: a `Pair` for each two images. `list`: the number of images of each
        identity, a dict. `remove`: the number of erased images. `stats`: the facts about the
        gallery, a dict. `calibrate`: the new `keras_reid.evaluation.MatchCalibration`.

    Raises:
        InputError: an unknown subcommand, other arguments than it takes, or a gallery or images
            that do not exist.
    """
    if not options.words or options.words[0] not in {*COMMANDS, *ALIASES}:
        word = options.words[0] if options.words else ""
        raise InputError(f"The subcommand must be one of {', '.join(COMMANDS)}, got {word!r}.")
    name, *arguments = options.words
    name = ALIASES.get(name, name)
    act, counts, use = COMMANDS[name]
    if len(arguments) not in counts:
        raise InputError(f"{name} takes {use}, got {' '.join(arguments) or 'nothing'}.")
    is_query = name == "query"
    one_form = bool(arguments) != bool(options.description)
    one_flag = bool(options.dataset) != bool(options.data_dir)
    reject(
        (options.dataset and name != "calibrate", f"--dataset is a flag of calibrate, not {name}."),
        (name == "calibrate" and one_flag, "--dataset and --data_dir require each other."),
        (is_query and not one_form, "Images or --description are required for query, not both."),
    )
    results.format_of(options, name)
    check_outputs(options.overwrite, out=options.out)
    options.limits  # noqa: B018  raises for invalid limits before images are embedded
    if name in ("query", "list", "remove", "stats", "calibrate"):
        gallery.check_exists(options.uri)
    return act(options, arguments)


def query(options: SearchOptions, arguments: list[str]) -> list[QueryResult]:
    """Search for images, or for a description."""
    times = map(gallery.seconds, (options.after, options.before))
    where = gallery.Filter(options.cameras, options.not_cameras, *times)
    if options.description:
        answers = [_description_result(options, where)]
        results.write_queries(options, answers)
        return answers
    if options.rerank != "none":
        import_keras()
    paths = [path for argument in arguments for path in image_paths(argument)]
    options.check_images(paths)
    persons = options.finder.require(paths)
    embeddings = options.embedder()(persons.images)
    names = persons.names.tolist()
    with gallery.open(options.uri) as people:
        search: dict[str, Any] = {
            "top_k": min(options.top_k, max(1, people.count())),
            "filter": where,
            "query_cameras": options.query_camera and [options.query_camera] * len(names),
            "model_fingerprint": options.fingerprint,
            "reranking": reranking.full_name(options.rerank),
            "shortlist": max(options.top_k, options.shortlist),
        }
        if options.calibrated(people) is None:
            lists = people.search(embeddings, **search)
            answers = [_uncalibrated_result(*pair) for pair in zip(names, lists, strict=True)]
        else:
            decided = people.identify(embeddings, limits=options.limits, **search)
            answers = [
                QueryResult(image, one.identity, one.hits, one.decision, str(one))
                for image, one in zip(names, decided, strict=True)
            ]
        recall = people.store.stats().get("recall")
    results.write_queries(options, answers, recall)
    options.finder.skipped.finish()
    return answers


def _uncalibrated_result(image: str, hits: list[gallery.SearchResult]) -> QueryResult:
    """Return the result of a model without calibration."""
    nearest = hits[0].identity if hits else None
    return QueryResult(image, None, hits, None, f"nearest: {nearest} (not calibrated)")


def _description_result(options: SearchOptions, where: gallery.Filter) -> QueryResult:
    """Return the result of a description."""
    wanted = {}
    for text in options.description or ():
        name, _, value = text.partition("=")
        if value not in ("0", "1"):
            raise invalid("description", "NAME=1 or NAME=0, separated by commas", text)
        wanted[name] = value == "1"
    with gallery.open(options.uri) as people:
        hits = people.describe(wanted, options.top_k, where)
    words = ",".join(options.description or ())
    return QueryResult(words, None, hits, None, f"best fits of {words}")


def verify(options: SearchOptions, arguments: list[str]) -> list[Pair]:
    """Compare two images, all images of two folders, or the pairs of a table."""
    pairs = compare_pairs(options, arguments)
    results.write_pairs(options, pairs)
    options.finder.skipped.finish()
    return pairs


def identities(options: SearchOptions, arguments: list[str]) -> dict[str, int]:
    """Print and return the number of images of each identity, in natural order."""
    with gallery.open(options.uri) as people:
        counts = people.identities()
    counts = {name: counts[name] for name in sorted(counts, key=natural)}
    results.write_identities(options, counts)
    return counts


def remove(options: SearchOptions, arguments: list[str]) -> int:
    """Erase a person from the gallery."""
    with gallery.open(options.uri) as people:
        removed = people.remove(arguments[0])
    if not removed:
        raise InputError(f"Identity {arguments[0]!r} not found in {options.uri}. Run list.")
    say(f"erased {counted(removed, 'image')} of {arguments[0]}")
    return removed


def stats(options: SearchOptions, arguments: list[str]) -> dict[str, Any]:
    """Print and return the numbers of rows and identities, the model and the calibration."""
    with gallery.open(options.uri) as people:
        values = people.stats()
    results.write_stats(options, values)
    return values


MANY = 10_000
NO_WORDS = "no arguments"
VERIFIED = "two images, two folders, or a CSV file with columns first,second"
# The function of each subcommand, numbers of arguments, and the arguments in words.
COMMANDS: dict[str, tuple[Callable[[SearchOptions, list[str]], SearchOutput], range, str]] = {
    "enrol": (enrol, range(1, 2), "a folder, a CSV file, or a folder of embed.py"),
    "query": (
        query,
        range(MANY + 1),
        f"1 to {MANY:,} images or folders, or none and --description",
    ),
    "verify": (verify, range(1, 3), VERIFIED),
    "list": (identities, range(1), NO_WORDS),
    "remove": (remove, range(1, 2), "one identity"),
    "stats": (stats, range(1), NO_WORDS),
    "calibrate": (calibrate, range(1), f"{NO_WORDS}, only the flags --dataset and --data_dir"),
}

ALIASES = {"enroll": "enrol"}
SHOWN = "model gallery match_probability top_k cameras after before format out"
run = Command(search, SearchOptions, SHOWN, words=tuple(COMMANDS))
