"""Exported embedder under load: requests per second and latency, with and without batching.

    python benchmarks/serving.py
    python benchmarks/serving.py --seconds=60 --clients=1,8,32

Clients on this machine send gRPC requests to the server of examples/serving_server.py. A request
has one JPEG file of a synthetic pedestrian, and a client sends its requests one after the other.
The server runs in a separate process, which is restarted for each row. The first second does not
count. `--address` measures another gRPC server, such as TensorFlow Serving.
Needs `pip install ".[serving]"`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from keras_reid import models, serving
from keras_reid.data import synthetic

ROOT = Path(__file__).resolve().parent.parent
WARM = 1.0  # seconds that do not count
BATCHES = (1, 8, 32)


@contextmanager
def server(path: Path, batch: int) -> Iterator[str]:
    """Start a server in a separate process and return its address."""
    command = [sys.executable, str(ROOT / "examples/serving_server.py"), str(path)]
    process = subprocess.Popen(
        [*command, "--address=localhost:0", f"--batch={batch}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        yield f"localhost:{said.split()[-1]}"
    finally:
        process.terminate()
        process.wait()


def load(address: str, files: list[bytes], clients: int, seconds: float) -> np.ndarray:
    """Return the seconds of each request that began after the first second."""
    begin = time.perf_counter() + WARM
    took: list[float] = []

    def ask(number: int) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "person"
            request.model_spec.signature_name = "serving_bytes"
            request.inputs["image_bytes"].CopyFrom(
                tf.make_tensor_proto([files[number % len(files)]])
            )
            while (start := time.perf_counter()) < begin + seconds:
                stub.Predict(request, timeout=60, wait_for_ready=True)
                if start > begin:
                    took.append(time.perf_counter() - start)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(took)


def main() -> None:
    """Print a row for each number of clients and size of batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--address", help="of a server that runs already, instead of our own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        synthetic.generate(Path(folder) / "drawn", 2, 8, cameras=2)
        images = sorted((Path(folder) / "drawn/query").glob("*.jpg"))
        files = [image.read_bytes() for image in images]
        path = serving.export(models.pretrained(), Path(folder) / "person")
        print("| clients | batches of | requests/s | median, ms | 99 % within, ms |")
        print("| --- | --- | --- | --- | --- |")
        for clients in map(int, options.clients.split(",")):
            for batch in BATCHES if options.address is None else (0,):
                if options.address:
                    took = load(options.address, files, clients, options.seconds)
                else:
                    with server(path, batch) as address:
                        took = load(address, files, clients, options.seconds)
                half, most = (1000 * np.quantile(took, q) for q in (0.5, 0.99))
                rate = len(took) / options.seconds
                named = "one" if batch == 1 else f"up to {batch}" if batch else "the server's"
                print(f"| {clients} | {named} | {rate:.1f} | {half:.1f} | {most:.1f} |", flush=True)


if __name__ == "__main__":
    main()
