"""Draw persons to try the commands: `photos`, a folder for each, `crops` and `somebody.jpg`.

    python examples/photos.py
    python examples/photos.py --out=somewhere

Four pictures of each of twelve drawn pedestrians by two cameras are `photos`; `crops` are those of
other cameras, in one heap; `somebody.jpg` is one of these.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from keras_reid import data
from keras_reid.data import synthetic

PEOPLE = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()
    photos, crops, somebody = (options.out / n for n in ("photos", "crops", "somebody.jpg"))
    for path in (photos, crops, somebody):
        if path.exists():
            parser.error(f"nothing is overwritten, and {path} exists: name another --out")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "drawn"
        synthetic.generate(root, PEOPLE, 2, cameras=4, images_per_camera=2, size=(256, 128))
        images = data.load("market1501", str(root)).train
        assert images is not None
        assert images.camera is not None
        crops.mkdir(parents=True)
        for number, (path, identity, camera) in enumerate(
            zip(images.path.tolist(), images.identity.tolist(), images.camera.tolist(), strict=True)
        ):
            if camera <= 2:
                target = photos / f"person-{identity:02d}" / f"{number}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
            else:
                target = crops / f"{number:03d}.jpg"
                if not somebody.exists():
                    shutil.copy(path, somebody)
            shutil.copy(path, target)
    print(f"drawn: {photos}, {crops} and {somebody}")


if __name__ == "__main__":
    main()
