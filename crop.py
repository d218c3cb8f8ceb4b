"""The command of the same name in keras_reid.cli, for use from a checkout."""

from keras_reid.cli.crop import run

if __name__ == "__main__":
    run()
