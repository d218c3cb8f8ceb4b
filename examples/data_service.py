"""Decode and augment on other machines: a dispatcher and workers.

    python examples/data_service.py --port=5050                      # on one machine
    python examples/data_service.py --dispatcher=that-machine:5050   # on each that has the images
    python train.py --dataset=market1501 --data_dir=… --data_service=grpc://that-machine:5050

Workers read the images under the same names as the trainer. It is the `tf.data` service of
TensorFlow, with no code of keras_reid, and ends when it is interrupted.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

service = tf.data.experimental.service


def main() -> None:
    """Run a dispatcher, or a worker of `--dispatcher`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--dispatcher", help="HOST:PORT; this is a worker then")
    options = parser.parse_args()
    if options.dispatcher:
        config = service.WorkerConfig(options.dispatcher, port=options.port)
        server = service.WorkerServer(config)
        print(f"works for {options.dispatcher}", flush=True)
    else:
        server = service.DispatchServer(service.DispatcherConfig(port=options.port))
        print(f"dispatches at {server.target}", flush=True)
    server.join()


if __name__ == "__main__":
    main()
