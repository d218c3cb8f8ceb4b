"""Programs that embed an image with an export, without this package."""

from pathlib import Path

from keras_reid.inference.metadata import Metadata

PIXELS = """\
image = ImageOps.exif_transpose(Image.open("person.jpg")).convert("RGB")
image = image.resize(({width}, {height}), Image.Resampling.BILINEAR)
pixels = np.asarray(image)[None]
"""
TEMPLATES = {
    "saved_model": """\
from pathlib import Path

import tensorflow as tf

model = tf.saved_model.load("{folder}")
image_bytes = tf.constant([Path("person.jpg").read_bytes()])
outputs = model.signatures["serving_bytes"](image_bytes=image_bytes)
embedding = outputs["embedding"].numpy()[0]
""",
    "rest": """\
import base64
import json
import urllib.request
from pathlib import Path

image = base64.b64encode(Path("person.jpg").read_bytes()).decode()
request = {{"signature_name": "serving_bytes", "inputs": {{"image_bytes": [{{"b64": image}}]}}}}
url = "http://localhost:8501/v1/models/{name}:predict"
with urllib.request.urlopen(url, json.dumps(request).encode()) as response:
    embedding = json.load(response)["outputs"]{output}[0]
""",
    "onnx": f"""\
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

{PIXELS}session = onnxruntime.InferenceSession("{{folder}}/model.onnx")
embedding = session.run(["embedding"], {{{{"images": pixels}}}})[0][0]
""",
    "litert": f"""\
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

{PIXELS}run = Interpreter("{{folder}}/model.tflite").get_signature_runner()
embedding = run(images=pixels)["embedding"][0]
embedding = embedding / np.linalg.norm(embedding)  # which int8 arithmetic does not keep at 1
""",
    "openvino": f"""\
import numpy as np
import openvino
from PIL import Image, ImageOps

{PIXELS}model = openvino.Core().compile_model("{{folder}}/model.xml", "CPU")
embedding = model(pixels)["embedding"][0]
""",
}


def snippets(version: Path) -> dict[str, str]:
    """Return programs that embed `person.jpg` with an export of a model of images.

    Args:
        version: folder of the version.

    Returns:
        Programs by "rest" (a request to TensorFlow Serving) or the format of the export.
    """
    metadata = Metadata.read(version)
    height, width = metadata.image_size
    names = [metadata.format] + ["rest"] * (metadata.format == "saved_model")
    values = {"folder": version, "name": version.absolute().parent.name}
    values["output"] = "" if metadata.local is None else '["embedding"]'
    return {name: TEMPLATES[name].format(height=height, width=width, **values) for name in names}
