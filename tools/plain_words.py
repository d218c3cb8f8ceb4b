#!/usr/bin/env python3
"""Report sentences that need a second reading.

    python tools/plain_words.py [--list] [--max_per_thousand N] [PATH ...]

Reads docstrings, comments, messages, help texts and Markdown, and prints the number of findings per
1,000 lines of each path. `--list` prints each finding as `FILE:LINE: RULE: TEXT`.
`--max_per_thousand` exits with 1 if a path has more. A line that ends in `plain-words: ok` is
skipped. The rules are a filter: a sentence without a finding may still need to be rewritten.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PATHS = (
    *("keras_reid", "README.md", "docs", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("benchmarks", "examples", "tests", "tools"),
)
OPENING = re.compile(
    r"^(What|Whether|Of|Which|Where|Who|Whom|Whose|How|Those|Some|Such|By|From|With|That|As|Beside|"
    r"On|At|For|So|Its?|Their|They|Only|Also|Any|Both|None|Neither|Under|Between|Without|Not|Once|"
    r"Nobody|Somebody|Everyone|Says|Tells|Refuses|Gives|Takes|Makes|Puts|Stands|Goes|Looks|Asks|"
    r"Adds|Checks(?! of)|Computes|Copies|Decodes|Does|Draws|Has|Holds|Is|Keeps|Opens|Prints|Reads|"
    r"Returns|Serves|Writes)\b"
)
RULES = {
    "riddle": r"\b(of|by|to|for|with|in|from|after|at|on|without|beyond) (which|whom)\b"
    r"|\bwhose\b|\bthose (that|who)\b|\bsuch (as are|that are)\b",
    "person": r"\b(whoever|nobody|somebody|everyone|everybody|stranger|strangers)\b",
    "actor": r"\b(dies|died|lets|wants?|hands? (it|on|over|them))\b",  # programs are not people
    "archaic": r"\b(anew|hence|thereby|wherein|herein|likewise|meanwhile|at last"  # plain-words: ok
    r"|lest|whence|thereof|beside)\b",
    "speech": r"\b(says?|said|told|tells?|asks?|asked|answers?|answered|knows?) (so|of|it|what"
    r"|which|who|how|by|in|nothing|something|the|a|its|that|them)\b",
    "negation": r"\b(is|are|was|be) ((?-i:none)|no (number|file|image|flag|loss|word|row|name"
    r"|folder|text|model|run|key|column))\b|\bno other\b|\bnone of\b",
    "vague": r"\b(what (is|are|was|were|it|they|a|an|the|comes|goes|one|others|needs|follows)"
    r"|what's)\b",
    "figure": r"\b(goes? on|went on|stands? (in|for|as|there|on|beside|where)"  # plain-words: ok
    r"|takes? (its|the|their) place|is there|are there|way back|door|house|room)\b",
    "form": r"; received\b|: received\b|\breceived \{",  # plain-words: ok
}
PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in RULES.items()}
LONG = 34  # words in a sentence
# Lines from >>> on, with their output, up to an empty line.
EXAMPLE = re.compile(r"^[ \t]*>>>.*(?:\n[ \t]*\S.*)*", re.MULTILINE)
SKIPPED = "plain-words: ok"
Text = tuple[int, str, bool]  # line, text, True for docstrings and headings


def findings(text: str, docstring: bool) -> Iterator[tuple[str, str]]:
    """Yield (rule, excerpt) for each finding in a text, without the examples of a docstring."""
    clean = re.sub(r"`[^`]*`", "X", " ".join(EXAMPLE.sub("", text).split()))
    if docstring and OPENING.match(clean):
        yield "opening", clean[:90]
    for name, pattern in PATTERNS.items():
        for match in pattern.finditer(clean):
            yield name, clean[max(0, match.start() - 30) : match.end() + 30]
    for sentence in re.split(r"(?<=[.;:?!])\s", clean):
        if len(sentence.split()) > LONG and "|" not in sentence:
            yield "long", f"{len(sentence.split())} words: {sentence[:70]}"


def python_texts(source: str) -> Iterator[Text]:
    """Yield the docstrings, the string constants with spaces, and the comments of a module."""
    nodes = list(ast.walk(ast.parse(source)))
    docstrings = set()
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str(text)) as constant), *_]:
                    docstrings.add(id(constant))
                    yield constant.lineno, text, True
    pieces = {id(v) for node in nodes if isinstance(node, ast.JoinedStr) for v in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else "X" for v in node.values)
            yield node.lineno, "".join(map(str, parts)), False
        elif (
            isinstance(node, ast.Constant)
            and id(node) not in docstrings | pieces
            and str(node.value).count(" ") >= 2
        ):
            yield node.lineno, str(node.value), False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# "), False


def markdown_texts(source: str) -> Iterator[Text]:
    """Yield the paragraphs outside of code; headings follow the rules of docstrings."""
    code, block, start = False, [], 1
    for number, line in enumerate([*source.splitlines(), ""], 1):
        if line.startswith("```"):
            code = not code
        if code or line.startswith(("    ", "```")) or not line.strip():
            if block:
                yield start, " ".join(block), False
            block = []
            continue
        if line.startswith("#"):
            yield number, line.lstrip("# "), True
            continue
        if not block:
            start = number
        block.append(line.lstrip("#>-* "))


def in_file(path: Path) -> list[tuple[int, str, str]]:
    """Return (line, rule, excerpt) of each finding in a file."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    texts = python_texts(source) if path.suffix == ".py" else markdown_texts(source)
    return [
        (line, rule, excerpt)
        for line, text, docstring in texts
        if not lines[line - 1].rstrip().endswith(SKIPPED)
        for rule, excerpt in findings(text, docstring)
    ]


def files_in(root: Path) -> list[Path]:
    """Return the Python and Markdown files of a folder, or the file itself."""
    every = [root] if root.is_file() else sorted(root.rglob("*"))
    return [path for path in every if path.suffix in (".py", ".md")]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", default=PATHS, type=Path)
    parser.add_argument("--list", action="store_true", help="Print each finding.")
    parser.add_argument(
        "--max_per_thousand", type=float, help="Maximum of findings per 1,000 lines."
    )
    options = parser.parse_args(arguments)
    failed = False
    for root in map(Path, options.paths):
        rules: Counter[str] = Counter()
        lines = 0
        for path in files_in(root):
            for line, rule, text in in_file(path):
                rules[rule] += 1
                if options.list:
                    print(f"{path}:{line}: {rule}: {text}")
            lines += len(path.read_text(encoding="utf-8").splitlines())
        rate = rules.total() * 1000 / max(lines, 1)
        details = ", ".join(f"{count} {rule}" for rule, count in rules.most_common())
        print(f"{root}: {rate:.1f} findings per 1,000 lines: {details or 'none'}")
        failed |= options.max_per_thousand is not None and rate > options.max_per_thousand
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        sys.exit(0)
