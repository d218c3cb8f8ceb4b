"""The table of benchmarks: numbers of printed lines, ratios and markers."""

import importlib.util
import re

import pytest
from conftest import ROOT

SPEC = importlib.util.spec_from_file_location("run_all", ROOT / "benchmarks/run_all.py")
run_all = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run_all)

OUTPUT = """\
512 images, 192×96, medians of 5 rounds
commands                       170 images/s    1.02  (goal 1.3)
--runtime=keras              1,124 images/s
inverted file: 30 s to build, 48 of 1024 lists
exact               121 queries/s  recall 1.0000
search.py query              1.23 s
ours             0.98 s   0.30 GiB more,  0.41 GiB in total
  ReidModel.fit           198.1 ms/step   161.5 images/s  1.050 × the peer's speed
| detector on | frames/s | CPU s/frame |
| --- | --- | --- |
| every 5. frame | 31.5 | 0.031 | 50.1 |
"""


def test_lines_returns_first_number_and_unit_of_each_name() -> None:
    assert {name: str(one) for name, one in run_all.lines(OUTPUT).items()} == {
        "commands": "170 images/s",
        "runtime=keras": "1,124 images/s",
        "exact": "121 queries/s",
        "search.py query": "1.23 s",
        "ours": "0.98 s",
        "ReidModel.fit": "198 ms/step",
        "every 5. frame": "31.5 frames/s",
    }


@pytest.mark.parametrize(("unit", "ratio"), [("images/s", "2.00"), ("s", "0.50")])
def test_table_line_ratio_is_speed_relative_to_peer(unit: str, ratio: str) -> None:
    row = run_all.Row("files", "x.py", "ours", "peer")
    measured = {"ours": run_all.Measured(8, unit), "peer": run_all.Measured(4, unit)}
    line = run_all.table_line(row, measured)
    assert line == (
        f"| files | `python benchmarks/x.py` | 8.00 {unit} | peer | 4.00 {unit} | **{ratio}** |"
    )


def test_table_line_missing_name_exits_with_names() -> None:
    row = run_all.Row("files", "x.py", "ours", "peer")
    with pytest.raises(SystemExit, match="must print lines of peer, got ours"):
        run_all.table_line(row, {"ours": run_all.Measured(8, "s")})


def test_written_replaces_text_between_markers_of_readme() -> None:
    page = run_all.README.read_text("utf-8")
    changed = run_all.written(page, "\nnew\n")
    assert run_all.written(changed, "\nnew\n") == changed
    begin, end = map(re.escape, run_all.MARKERS)
    assert re.search(f"{begin}\nnew\n{end}", changed)
    with pytest.raises(SystemExit, match="must have the markers"):
        run_all.written("page", "new")
