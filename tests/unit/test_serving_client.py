"""Client of the docs, run against servers with the exported signatures."""

import base64
import importlib.util
import json
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from keras_reid import inference, models, serving

CLIENT = ROOT / "examples/serving_client.py"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Signatures by model, and image files of three sizes."""
    root = tmp_path_factory.mktemp("served")
    model = models.build("tiny", 5, (32, 16), weights="none")
    embedder = serving.export(model, root / "person")
    saved = inference.load(embedder)
    ranker = serving.export_ranker(root / "ranker", saved.embedding_dim)
    files = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 20, 3)).astype(np.uint8)
        files.append(root / f"{i}.png")
        files[-1].write_bytes(tf.io.encode_png(pixels).numpy())
    restored = {"person": tf.saved_model.load(embedder), "ranker": tf.saved_model.load(ranker)}
    contents = tf.constant([file.read_bytes() for file in files])
    signature = saved.signatures["serving_bytes"]  # resizes in the graph, as the server does
    embedding = signature(image_bytes=contents)["embedding"].numpy()
    distances = np.linalg.norm(embedding[1:] - embedding[0], axis=1)
    order = np.argsort(distances)
    expected = "".join(f"{distances[i]:.4f}  {files[1 + i]}\n" for i in order)
    return restored, files, expected


def answered(restored, model, signature, inputs):
    function = restored[model].signatures[signature]
    specs = function.structured_input_signature[1]
    given = {name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()}
    return {name: value.numpy() for name, value in function(**given).items()}


def decoded(value):
    """`{"b64": …}` encodes bytes, as in TensorFlow Serving."""
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return [decoded(v) for v in value] if isinstance(value, list) else value


def rest(restored):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            model = self.path.removeprefix("/v1/models/").removesuffix(":predict")
            inputs = {name: decoded(value) for name, value in body["inputs"].items()}
            outputs = answered(restored, model, body["signature_name"], inputs)
            values = {name: value.tolist() for name, value in outputs.items()}
            # As TensorFlow Serving does, a single output is not named.
            (*_, only) = values.values()
            content = json.dumps({"outputs": only if len(values) == 1 else values}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop():
        server.shutdown()
        server.server_close()

    return server.server_port, stop


def rpc(restored):
    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            spec = request.model_spec
            answer = predict_pb2.PredictResponse()
            outputs = answered(restored, spec.name, spec.signature_name, inputs)
            for name, value in outputs.items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return answer

    server = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return port, lambda: server.stop(None)


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize("protocol", [rest, rpc])
def test_serving_client_rest_and_grpc_ranks_images(served, monkeypatch, capsys, protocol):
    restored, files, expected = served
    spec = importlib.util.spec_from_file_location("serving_client", CLIENT)
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    port, stop = protocol(restored)
    try:
        more = ["--grpc"] if protocol is rpc else []
        arguments = [f"--address=127.0.0.1:{port}", *more, *map(str, files)]
        monkeypatch.setattr("sys.argv", ["serving_client.py", *arguments])
        client.main()
        assert capsys.readouterr().out == expected
        monkeypatch.setattr("sys.argv", ["serving_client.py", "--signature=rerank", *arguments])
        client.main()
        assert len(capsys.readouterr().out.splitlines()) == 3
    finally:
        stop()


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
def test_serving_server_batched_requests_match_export(tmp_path, batch):
    spec = importlib.util.spec_from_file_location("server", ROOT / "examples/serving_server.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = models.build("tiny", 5, (32, 16), weights="none")
    path = serving.export(model, tmp_path / "person")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 16, 3), np.uint8)
    options = {"name": "person", "batch": batch, "wait": 0.05, "threads": 1}
    server, port = module.serve(str(path), "127.0.0.1:0", **options)

    def ask(rows, signature="serving_default"):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "person", signature
        request.inputs["images"].CopyFrom(tf.make_tensor_proto(rows))
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            return tf.make_ndarray(stub.Predict(request, timeout=60).outputs["embedding"])

    try:
        with futures.ThreadPoolExecutor(4) as clients:
            found = np.concatenate(list(clients.map(ask, np.split(images, 4))))
        np.testing.assert_allclose(found, inference.load(path).embed(images), atol=1e-5)
        with pytest.raises(grpc.RpcError, match="is served"):
            ask(images, "nothing")
    finally:
        server.stop(None)
