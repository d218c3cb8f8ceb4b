"""Results of `search` as a table, JSON, CSV or an HTML page, printed or written to a file."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_reid import gallery, visualize
from keras_reid.cli.terminal import json_text, say
from keras_reid.cli.verify import Pair, missing_calibration
from keras_reid.errors import InputError, invalid
from keras_reid.io import new_file

if TYPE_CHECKING:
    from keras_reid.cli.search import SearchOptions

# Formats of each subcommand that has results.
FORMATS = {
    "query": ("table", "json", "csv", "html"),
    "verify": ("table", "json", "csv"),
    "list": ("table", "json", "csv"),
    "stats": ("table", "json"),
}
SUFFIXES = {".txt": "table", ".json": "json", ".csv": "csv", ".html": "html"}
# Columns of queries: the result of a query, and a retrieved image in each line.
COLUMNS = ("query", "match", "verdict", "probability", "rank", *gallery.SearchResult._fields)
Writers = Mapping[str, Callable[[], str]]  # functions that return the text, by format


class QueryResult(NamedTuple):
    """Result of a query.

    Attributes:
        image: path of the query image, or the description.
        identity: name of the match or possible match, else None.
        hits: images of the gallery, nearest first.
        decision: decision about the nearest person; None for a description, or if there is no
            calibration.
        text: printed answer.
    """

    image: str
    identity: str | None
    hits: list[gallery.SearchResult]
    decision: gallery.Decision | None
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        verdict, probability = self.decision or (None, None)
        return {
            "image": self.image,
            "identity": self.identity,
            "verdict": verdict,
            "probability": probability,
            "hits": [hit._asdict() for hit in self.hits],
        }


def format_of(options: "SearchOptions", subcommand: str) -> str:
    """Return the format of the results, from --format or the suffix of --out; table by default.

    Raises:
        InputError: the subcommand has no such format.
    """
    formats = FORMATS.get(subcommand, ("table",))
    format, suffix = options.format, Path(options.out or "results.txt").suffix.lower()
    if format is None and suffix not in SUFFIXES:
        rule = f"a path that ends in {', '.join(SUFFIXES)}"
        raise invalid("out", rule, options.out, "Or set `format`.")
    name = format or SUFFIXES[suffix]
    if name not in formats or (options.out and subcommand not in FORMATS):
        if subcommand not in FORMATS:
            raise InputError(f"{subcommand} has no results to write. Omit --format and --out.")
        raise invalid("format", f"one of {', '.join(formats)} for {subcommand}", name)
    return name


def write(options: "SearchOptions", subcommand: str, writers: Writers) -> None:
    """Print the text of a format, or write it to the file of --out and print its path."""
    text = writers[format_of(options, subcommand)]().rstrip("\n")
    if not options.out:
        say(text)
        return
    with new_file(options.out, options.overwrite) as file:
        file.write_text(f"{text}\n", encoding="utf-8")
    say(f"results: {options.out}")


def write_queries(
    options: "SearchOptions", results: Sequence[QueryResult], recall: float | None = None
) -> None:
    """Print or write the results of `query`; `recall` is that of an approximate search."""

    def table() -> str:
        lines = []
        if recall is not None:
            lines = [f"approximate search, recall {recall:.4f} on a sample of the gallery"]
        for result in results:
            lines.append(f"{result.image}: {result.text}")
            for rank, hit in enumerate(result.hits, start=1):
                camera = f"camera {hit.camera}" if hit.camera else ""
                name = f"{hit.identity:<12} {camera:<10}"
                lines.append(f"{rank:>4}  {hit.distance:.4f}  {name} {hit.image}")
        return "\n".join(lines)

    def rows() -> Iterable[Sequence[Any]]:
        for result in results:
            *values, hits = result.to_dict().values()
            for rank, hit in enumerate(hits, start=1):
                yield [*values, rank, *hit.values()]
            if not hits:
                yield values + [None] * (len(COLUMNS) - len(values))

    def page() -> str:
        description = {"described": bool(options.description)}
        pages = [
            {**r.to_dict(), **options.finder.picture(r.image), "answer": r.text, **description}
            for r in results
        ]
        return visualize.search_page(pages)

    writers: Writers = {
        "table": table,
        "json": lambda: json_text(_with_limits(options, "queries", results)),
        "csv": lambda: csv_text(COLUMNS, rows()),
        "html": page,
    }
    write(options, "query", writers)


def write_pairs(options: "SearchOptions", results: Sequence[Pair]) -> None:
    """Print or write the results of `verify`."""

    def table() -> str:
        lines = []
        if results and results[0].decision is None:
            lines = [missing_calibration(options)]
        for first, second, distance, decision in results:
            verdict = "" if decision is None else str(decision)
            lines.append(f"{distance:.4f}  {verdict:<22} {first}  {second}")
        return "\n".join(lines)

    rows = [result.to_dict() for result in results]
    columns = ("first", "second", "distance", "verdict", "probability")
    writers: Writers = {
        "table": table,
        "json": lambda: json_text(_with_limits(options, "pairs", results)),
        "csv": lambda: csv_text(columns, [[*row.values()] for row in rows]),
    }
    write(options, "verify", writers)


def write_identities(options: "SearchOptions", counts: Mapping[str, int]) -> None:
    """Print or write the results of `list`."""
    width = max((len(f"{count:,}") for count in counts.values()), default=0)
    lines = (f"{count:>{width},}  {name}" for name, count in counts.items())
    writers: Writers = {
        "table": lambda: "\n".join(lines),
        "json": lambda: json_text(counts),
        "csv": lambda: csv_text(("identity", "images"), [*counts.items()]),
    }
    write(options, "list", writers)


def write_stats(options: "SearchOptions", values: Mapping[str, Any]) -> None:
    """Print or write the results of `stats`."""

    def table() -> str:
        lines = []
        for key, value in values.items():
            shown = value
            if key == "calibration" and value is not None:
                shown = value["source"]
                if value["persons"]:
                    count = f"{value['images']:,} images of {value['persons']:,} persons"
                    shown += f", adapted to {count}"
            lines.append(f"{key:<12} {shown}")
        return "\n".join(lines)

    write(options, "stats", {"table": table, "json": lambda: json_text(values)})


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table with a header; None is an empty value."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    return text.getvalue()


def _with_limits(
    options: "SearchOptions", name: str, results: Sequence[QueryResult | Pair]
) -> dict[str, Any]:
    """Return the results for JSON with the limits of the verdicts."""
    limits = {
        "match_probability": options.match_probability,
        "possible_probability": options.possible_probability,
    }
    return {**limits, name: [result.to_dict() for result in results]}
