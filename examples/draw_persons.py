"""Draw pose, attributes, tracklets and tracks of synthetic pedestrians for docs/images.

python train.py --attribute_weight=1 --attributes=data/synthetic/attributes.csv --run=runs/worn
python examples/draw_persons.py --data_dir=data/synthetic --run=runs/worn --out=pictures
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from keras_reid import data, inference, layers, tracking, visualize
from keras_reid.data import synthetic
from keras_reid.data.mot import Boxes
from keras_reid.visualize.lettering import Lettering

DESCRIPTIONS = ({"upred": True}, {"backpack": True, "downblack": True}, {"hat": True, "up": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="A synthetic data set.")
    parser.add_argument("--run", required=True, help="Run of the recipe attributes.")
    parser.add_argument("--out", required=True, help="New folder.")
    given = parser.parse_args()
    out = Path(given.out)
    out.mkdir(parents=True)
    embedder = inference.load(given.run, outputs=("embedding", "attribute_probabilities"))
    names = embedder.source.settings["attribute_names"]
    dataset = data.load("synthetic", given.data_dir)
    pictures = {
        "pose": pose(),
        "attributes": attributes(embedder, names, dataset.gallery),
        "tracklets": tracklets(dataset.train),
        "tracking": scene(embedder),
    }
    for name, picture in pictures.items():
        picture.quantize(128).save(out / f"{name}.png")


def pose() -> Image.Image:
    """Draw persons with their points, and the heat maps that pool the feature map."""
    pictures = []
    for person in range(7):
        image, points = synthetic.render(person, 1 + person % 4, 0, size=(192, 96))
        heat = layers.KeypointHeatmaps((16, 8))(points[None].astype("float32"))[0]
        pictures.append(np.asarray(visualize.draw_keypoints(image, points, heat, 192)))
    return Image.fromarray(np.concatenate(pictures, axis=1))


def attributes(
    embedder: inference.Embedder, names: list[str], images: data.PersonImages
) -> Image.Image:
    """Draw the images with the best predicted fit to each description."""
    probabilities = embedder.embed(images)["attribute_probabilities"]
    rows = []
    for wanted in DESCRIPTIONS:
        columns = [names.index(name) for name in wanted]
        p = probabilities[:, columns]
        fit = np.log(np.maximum(np.where(list(wanted.values()), p, 1 - p), 1e-6)).sum(axis=1)
        title = ", ".join(f"{name}={int(value)}" for name, value in wanted.items())
        rows.append((title, images.path[np.argsort(-fit)[:8]]))
    return sheet(rows)


def tracklets(images: data.PersonImages) -> Image.Image:
    """Draw a row for each tracklet of the first person."""
    found = data.tracklets(images[images.identity == images.identity.min()])
    each = found.per_tracklet()
    titles = (f"identity {i}, camera {c}" for i, c in zip(each.identity, each.camera, strict=True))
    return sheet(
        [(t, found.path[rows]) for t, rows in zip(titles, found.tracklet_rows, strict=True)]
    )


def sheet(rows: list[tuple[str, np.ndarray]], height: int = 96, caption: int = 16) -> Image.Image:
    """Draw a row of images for each title."""
    width = max(len(paths) for _, paths in rows) * height // 2
    picture = Image.new("RGB", (max(width, 160), len(rows) * (height + caption)), "white")
    draw = ImageDraw.Draw(picture)
    for row, (title, paths) in enumerate(rows):
        top = row * (height + caption)
        Lettering(title, 10).draw(draw, (2, top + 2), (0, 0, 0))
        for column, path in enumerate(paths):
            with Image.open(path) as image:
                small = image.convert("RGB").resize((height // 2, height))
            picture.paste(small, (column * height // 2, top + caption))
    return picture


def scene(embedder: inference.Embedder, frames: int = 40) -> Image.Image:
    """Draw three crossing persons with their tracks by appearance and motion."""
    rng = np.random.default_rng(0)
    street = synthetic.street(rng, 256).resize((512, 256))
    starts, speeds = (20.0, 430.0, 220.0), (10.0, -10.0, 1.0)
    boxes, crops, where = [], [], []
    for frame in range(1, frames + 1):
        image = street.copy()
        for person, (start, speed) in enumerate(zip(starts, speeds, strict=True)):
            x, y = start + speed * frame, 60.0 + 30 * person
            drawn = Image.fromarray(synthetic.draw(person, 1, frame % 3, size=(128, 64)))
            image.paste(drawn, (round(x), round(y)))
            boxes.append((x, y, 64.0, 128.0))
            where.append(frame)
            crops.append(np.asarray(drawn.resize(embedder.image_size[::-1])))
    found = Boxes(np.array(where), np.full(len(where), -1), np.array(boxes), np.ones(len(where)))
    looks = embedder([np.stack(crops)])["embedding"]
    tracks = tracking.track(found, looks)
    last = tracks[tracks.frame == frames]
    foot = tracks.box[:, :2] + tracks.box[:, 2:] * (0.5, 1.0)
    trails = [foot[tracks.identity == number] for number in last.identity]
    names = [f"track {number}" for number in last.identity]
    return visualize.draw_tracks(np.asarray(image), last.box, names, trails)


if __name__ == "__main__":
    main()
