"""Commands on unreadable or read-only files: one error line in a process without root rights."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from processes import TINY, within

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
NO_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture(scope="module")
def there(pedestrians: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create readable files, and unreadable ones: secret.*, secret/ and the folder full/."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may read and write everything, and setpriv is not installed")
    folder = tmp_path_factory.mktemp("rights")
    shutil.copytree(tiny_run / "run", folder / "run")
    people = folder / "people"
    for i, image in enumerate(sorted((pedestrians / "query").glob("*.jpg"))[:4]):
        (people / f"p{i}").mkdir(parents=True)
        shutil.copy(image, people / f"p{i}")
    enrol = ("--run=run", "--gallery=faiss:people.db", "enrol", "people")
    assert within("search.py", *enrol, cwd=folder)[0] == 0
    (folder / "video").mkdir()
    Image.new("RGB", (64, 96)).save(folder / "video/0.jpg")
    (folder / "det.txt").write_text("1,-1,5,5,20,40,1\n")
    for name in ("csv", "npz", "txt", "jpg", "tflite", "pb"):
        (folder / f"secret.{name}").write_text("x")
        (folder / f"secret.{name}").chmod(0)
    for source in folder.glob("people.db*"):
        kept = folder / source.name.replace("people", "secret")
        shutil.copy(source, kept)
        kept.chmod(0)
    for source in ("run", "people"):
        shutil.copytree(folder / source, folder / f"secret-{source}")
        (folder / f"secret-{source}").chmod(0)
    (folder / "full").mkdir()
    (folder / "full").chmod(0o555)
    return folder


def cases(data_dir: str) -> list[list[str]]:
    drawn = ["--dataset=market1501", f"--data_dir={data_dir}"]
    run, gallery = "--run=run", "--gallery=faiss:people.db"
    return [
        ["train", *drawn, *TINY, "--run=full/run"],
        ["train", *drawn, *TINY, "--run=new", "--cache=full/cache"],
        ["train", "--dataset=csv", "--data_dir=secret.csv", *TINY, "--run=new"],
        ["train", "--dataset=folder", "--data_dir=secret-people", *TINY, "--run=new"],
        ["train", *drawn, "--recipe=pose", "--keypoints=secret.csv", "--run=new"],
        ["train", *drawn, "--recipe=distill", "--teacher=secret-run", *TINY[1:], "--run=new"],
        ["evaluate", run, "--out=full/x.json"],
        ["evaluate", run, "--save_features=full/x"],
        ["evaluate", "--run=secret-run"],
        ["evaluate", "--features=secret.npz,secret.npz"],
        ["export", run, "--export_dir=full/export"],
        ["export", "--run=secret-run", "--export_dir=new"],
        ["cluster", run, "--images=people", "--csv=full/x.csv"],
        ["cluster", run, "--images=people", "--out=full/x"],
        ["cluster", run, "--images=people", "--contact_sheet=full/x.png"],
        ["cluster", run, "--images=secret-people", "--csv=x.csv"],
        ["embed", run, "--images=people", "--out=full/x"],
        ["embed", run, "--images=secret-people", "--out=x"],
        ["embed", run, "--images=secret.csv", "--out=x"],
        ["search", run, "--gallery=faiss:full/g.db", "enrol", "people"],
        ["search", run, "--gallery=full/g.db", "enrol", "people"],
        ["search", run, "--gallery=faiss:secret.db", "stats"],
        ["search", run, gallery, "enrol", "secret-people"],
        ["search", run, gallery, "query", "secret.jpg"],
        ["search", run, gallery, "--out=full/x.html", "query", "people/p0/0.jpg"],
        ["track", run, "--source=video", "--detections=det.txt", "--out=full/x.txt"],
        ["track", run, "--source=video", "--detections=secret.txt", "--out=x.txt"],
        ["track", run, "--source=video", "--detector=secret.pb", "--out=x.txt"],
        ["track", run, "--source=secret-people", "--detections=det.txt", "--out=x.txt"],
    ]


# One case for reading and one for writing of: a run, images, features or a gallery.
IN_CI = (0, 3, 7, 13, 19, 21)


@pytest.mark.parametrize(
    "number",
    [
        number if number in IN_CI else pytest.param(number, marks=pytest.mark.nightly)
        for number in range(len(cases("")))
    ],
)
def test_commands_permission_denied_print_one_error_and_write_nothing(there, pedestrians, number):
    program, *flags = cases(str(pedestrians))[number]
    rights = NO_RIGHTS if os.geteuid() == 0 else []
    before = sorted(there.rglob("*"))
    command = [*rights, sys.executable, str(ROOT / f"{program}.py"), *flags]
    ended = subprocess.run(
        command, cwd=there, capture_output=True, text=True, check=False, timeout=300
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert len([line for line in ended.stderr.splitlines() if line.startswith("error: ")]) == 1
    new = {path for path in there.rglob("*") if path not in before}
    assert not new, f"left behind: {new}"
