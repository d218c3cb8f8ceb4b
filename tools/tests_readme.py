"""Write the tables of `tests/README.md`: test files from their docstrings, faults from `breaks.py`.

    python tools/tests_readme.py

Text outside of the marked tables is kept. `tests/conformance/test_words.py` fails if the file is
not the one that this script writes.
"""

import ast
import re
from pathlib import Path

from breaks import BREAKS

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "tests/README.md"


def files() -> str:
    """Return a table with the first line of the docstring of each file in `tests`."""
    rows = ["| file | purpose |", "| --- | --- |"]
    for path in sorted((ROOT / "tests").rglob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        rows.append(f"| `{path.relative_to(ROOT / 'tests')}` | {docstring.splitlines()[0]} |")
    return "\n".join(rows)


def faults() -> str:
    """Return a table with each deliberate fault and the test that must fail."""
    rows = ["| fault | file | test |", "| --- | --- | --- |"]
    rows += [f"| {one.what} | `{one.file}` | `{one.test}` |" for one in BREAKS]
    return "\n".join(rows)


def written(text: str) -> str:
    """Return the text of the README with new tables."""
    for name, table in (("files", files()), ("faults", faults())):
        marked = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
        text = marked.sub(lambda match, table=table: f"{match[1]}{table}{match[2]}", text)
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
