"""The command of this package, see `keras_reid.demo.command`."""

from keras_reid.demo.command import run

if __name__ == "__main__":
    run()
