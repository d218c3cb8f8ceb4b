"""Commands on a full disk: one error line, existing files unchanged, no partial files."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from processes import call, within

# Milvus Lite leaves its own files open where it cannot write them.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# Amounts of free space, from none to the amount that a command needs.
LEVELS = int(os.environ.get("KERAS_REID_FILL_LEVELS", "2"))


class Disk:
    """A file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, free: int) -> None:
        """Leaves so many bytes."""
        self.empty()
        with (self.folder / "ballast").open("wb") as file:
            file.truncate(0)
            os.posix_fallocate(file.fileno(), 0, max(4096, self.room() - free))

    def room(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def empty(self) -> None:
        for entry in self.folder.iterdir():
            if entry.name != "held":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("a file system of its own can be made by root alone")
    (folder / "held").write_text("held")
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture(scope="module")
def there(pedestrians: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, images, a video and its detections."""
    folder = tmp_path_factory.mktemp("full")
    shutil.copytree(tiny_run / "run", folder / "run")
    for i, image in enumerate(sorted((pedestrians / "query").glob("*.jpg"))):
        (folder / f"people/p{i}").mkdir(parents=True)
        shutil.copy(image, folder / f"people/p{i}")
    (folder / "video").mkdir()
    for n in range(8):
        Image.new("RGB", (64, 96), (n, 0, 0)).save(folder / f"video/{n}.jpg")
    lines = (f"{n},1,{5 + n},5,20,40,1\n" for n in range(1, 9))
    (folder / "det.txt").write_text("".join(lines))
    (folder / "data").symlink_to(pedestrians)
    return folder


TRACK = ("track.py", "--noappearance", "--source=video", "--detections=det.txt")
TRAIN = ("train.py", "--dataset=market1501", "--data_dir=data", "--recipe=tiny", "--height=32")
WRITES = {
    "run": (*TRAIN, "--width=16", "--num_identities_per_batch=4", "--epochs=2", "--run={}/new"),
    "scores": ("evaluate.py", "--run=run", "--out={}/new.json"),
    "features": ("evaluate.py", "--run=run", "--save_features={}/new"),
    "groups": ("cluster.py", "--run=run", "--images=people", "--out={}/new", "--csv={}/new.csv"),
    "shards": ("embed.py", "--run=run", "--images=people", "--out={}/new", "--shard_size=2"),
    "contact_sheet": ("cluster.py", "--run=run", "--images=people", "--contact_sheet={}/new.jpg"),
    "tracks": (*TRACK, "--out={}/new.txt", "--ground_truth=det.txt", "--scores={}/new.json"),
    "frames": (*TRACK, "--annotated={}/new", "--out={}/new.txt"),
    "faiss": ("search.py", "--run=run", "--gallery=faiss:{}/new.db", "enrol", "people"),
    "milvus": ("search.py", "--run=run", "--gallery={}/new.db", "enrol", "people"),
    "export": ("export.py", "--run=run", "--export_dir={}/new", "--check_images=2"),
    "litert": ("export.py", "--run=run", "--export_dir={}/new", "--format=litert"),
}
# Complete outputs that may stay if a later file does not fit; galleries keep acknowledged rows.
WHOLE = {
    "run": ("new",),
    "groups": ("new",),
    "shards": ("new",),
    "tracks": ("new.txt",),
    "frames": ("new.txt",),
    "faiss": ("new.db", "new.db.rows", "new.db.rows-journal"),
    "milvus": ("new.db",),
    "export": ("new",),
    "litert": ("new",),
}


IN_CI = ("run", "groups", "faiss")


@pytest.mark.parametrize(
    "name",
    [name if name in IN_CI else pytest.param(name, marks=pytest.mark.nightly) for name in WRITES],
)
def test_commands_full_disk_print_one_error_and_leave_no_partial_file(
    name: str, disk: Disk, there: Path
) -> None:
    flags = [flag.format(disk.folder) for flag in WRITES[name]]
    disk.empty()
    before = disk.room()
    act = call if name == "run" else within
    code, _, err = act(*flags, cwd=there)
    assert code == 0, err
    needed = before - disk.room()
    refused = 0
    for level in range(LEVELS):
        disk.fill(level * needed // LEVELS)
        code, _, err = act(*flags, cwd=there)
        assert code in (0, 1)
        assert "Traceback" not in err
        if code:
            refused += 1
            assert len(re.findall("^error: ", err, re.MULTILINE)) == 1, err
            left = {entry.name for entry in disk.folder.iterdir()} - {"held", "ballast"}
            assert left <= {*WHOLE.get(name, ())}, left
            hidden = [entry for entry in disk.folder.rglob(".*") if name != "milvus"]
            assert not hidden
        assert (disk.folder / "held").read_text() == "held"
    assert refused
