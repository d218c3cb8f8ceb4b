"""Commands: absl flags in, library calls, files and tables out."""

import os

# Hide the log of TensorFlow's C++ side, except errors; to be set before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
