"""Client of TensorFlow Serving: embed images and rank them by the distance to the first.

    python examples/serving_client.py first.jpg second.jpg third.jpg
    python examples/serving_client.py --grpc first.jpg second.jpg

docs/serving.md describes a server with the models `person` and `ranker`. REST needs only the
standard library and NumPy, gRPC needs `pip install ".[serving]"`.
"""

import argparse
import base64
import json
import sys
import urllib.request
from pathlib import Path

import numpy as np

Outputs = dict[str, np.ndarray]


def ask_rest(address: str, model: str, signature: str, inputs: dict[str, object]) -> Outputs:
    """Send a request in the columnar format of `POST /v1/models/MODEL:predict`."""
    body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
    url = f"http://{address}/v1/models/{model}:predict"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        outputs = json.load(answer)["outputs"]
    # A signature with one output answers with the array itself.
    outputs = outputs if isinstance(outputs, dict) else {"embedding": outputs}
    return {name: np.array(values) for name, values in outputs.items()}


def ask_grpc(address: str, model: str, signature: str, inputs: dict[str, object]) -> Outputs:
    """Send a request to the service `PredictionService/Predict`."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.Predict(request, timeout=60)
    return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}


def main() -> None:
    """Print the images nearest to the first one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+", type=Path, help="the first one is looked for")
    parser.add_argument("--address", help="default: localhost:8501, with --grpc localhost:8500")
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--embedder", default="person")
    parser.add_argument("--ranker", default="ranker")
    parser.add_argument("--signature", default="rank", choices=["rank", "rerank"])
    options = parser.parse_args()
    address = options.address or ("localhost:8500" if options.grpc else "localhost:8501")
    ask = ask_grpc if options.grpc else ask_rest

    files = [path.read_bytes() for path in options.images]
    packed: list[object] = list(files)
    if not options.grpc:
        packed = [{"b64": base64.b64encode(file).decode()} for file in files]
    outputs = ask(address, options.embedder, "serving_bytes", {"image_bytes": packed})
    embedding = outputs["embedding"].astype(np.float32)
    decoded = np.isfinite(embedding).all(axis=1)
    for path in np.array(options.images)[~decoded]:
        print(f"{path}: not decoded by the server", file=sys.stderr)
    if not decoded[0]:
        sys.exit(1)
    images = np.array(options.images)[decoded]
    embedding = embedding[decoded]
    query, gallery = embedding[:1], embedding[1:]
    if not len(gallery):
        print(f"{images[0]}: {embedding.shape[1]} numbers; name more images to rank them")
        return
    given = (query, gallery) if options.grpc else (query.tolist(), gallery.tolist())
    inputs = {"query": given[0], "gallery": given[1], "k": min(10, len(gallery))}
    found = ask(address, options.ranker, options.signature, inputs)
    for index, distance in zip(found["indices"][0], found["distances"][0], strict=True):
        print(f"{distance:.4f}  {images[1 + int(index)]}")


if __name__ == "__main__":
    main()
