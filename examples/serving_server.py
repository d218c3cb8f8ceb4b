"""Serve an export by gRPC like TensorFlow Serving, for machines without its server.

    python examples/serving_server.py export/person/1
    python examples/serving_server.py export/person/1 --batch=32 --wait=0.002

Answers `PredictionService/Predict` for the model `person`: `serving_bytes` (files) and
`serving_default` (pixels). With --batch requests that wait at the same time are joined, by what
TensorFlow Serving itself joins them. Needs `pip install ".[serving]"`; docs/serving.md.
"""

import argparse
import os
from collections.abc import Callable
from concurrent import futures
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Server(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Service of one export.

    Args:
        path: folder of a version.
        name: model name of the requests.
        batch: maximum number of images at a time; 1: no batching.
        wait: seconds to wait for other requests.
        threads: number of batches at a time.
    """

    def __init__(self, path: str, name: str, batch: int, wait: float, threads: int) -> None:
        loaded = tf.saved_model.load(path)
        self.name = name
        self.signatures = {
            signature: joined(function, batch, wait, threads) if batch > 1 else function
            for signature, function in loaded.signatures.items()
        }
        self.loaded = loaded  # which keeps the variables

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        signature = request.model_spec.signature_name or "serving_default"
        if request.model_spec.name != self.name or signature not in self.signatures:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"The model {self.name} with {', '.join(self.signatures)} is served, got "
                f"{request.model_spec.name} with {signature}.",
            )
        try:
            given = {n: tf.constant(tf.make_ndarray(v)) for n, v in request.inputs.items()}
            outputs = self.signatures[signature](**given)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:300])
        answer = predict_pb2.PredictResponse()
        for output, value in outputs.items():
            answer.outputs[output].CopyFrom(tf.make_tensor_proto(value.numpy()))
        return answer


def joined(
    function: Callable[..., dict[str, tf.Tensor]], batch: int, wait: float, threads: int
) -> Callable[..., dict[str, tf.Tensor]]:
    """Return the function with batching of requests that arrive within `wait` seconds."""
    (_, specs) = function.structured_input_signature
    (argument,) = specs
    outputs = sorted(function.structured_outputs)
    sizes = [*(2**n for n in range((batch - 1).bit_length())), batch]  # padded to one of them

    @tf.nondifferentiable_batch_function(threads, batch, int(1e6 * wait), sizes, 100)
    def together(given: tf.Tensor) -> list[tf.Tensor]:
        answer = function(**{argument: given})
        return [answer[name] for name in outputs]

    @tf.function(input_signature=[specs[argument]], autograph=False)
    def one(given: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(outputs, together(given), strict=True))

    return lambda **given: one(given[argument])


def serve(path: str, address: str, **options: Any) -> tuple[grpc.Server, int]:
    """Start a server and return it with its port."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64))
    service = Server(path, **options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port(address)
    server.start()
    return server, port


def main() -> None:
    """Serve until an interruption."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", help="export/NAME/VERSION")
    parser.add_argument("--address", default="localhost:8500", help="a port of 0: any free one")
    parser.add_argument("--name", default="person")
    parser.add_argument("--batch", type=int, default=1, help="images computed at a time")
    parser.add_argument("--wait", type=float, default=0.002, help="seconds for others to come")
    parser.add_argument("--threads", type=int, default=2, help="batches at a time")
    options = vars(parser.parse_args())
    if not os.path.exists(os.path.join(options["path"], "saved_model.pb")):
        parser.error(
            f"{options['path']!r} must contain saved_model.pb. Choose a folder export/NAME/VERSION "
            "of export.py."
        )
    if options["batch"] < 1:
        parser.error(f"--batch must be at least 1, got {options['batch']}.")
    server, port = serve(options.pop("path"), options.pop("address"), **options)
    print(f"serving on port {port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
