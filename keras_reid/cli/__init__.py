"""The commands: absl flags in, library calls, files and tables out."""

import os

# TensorFlow's C++ side greets with several lines of log; its errors still come through. This must
# be said before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
