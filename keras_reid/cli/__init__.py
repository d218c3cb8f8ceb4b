"""The commands: absl flags in, library calls, files and tables out."""

import os
import sys

from keras_reid.errors import InputError
from keras_reid.registration import check_backend

# TensorFlow's C++ side greets with several lines of log; its errors still come through. This must
# be said before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Commands import Keras at module level, before they can report an error.
try:
    check_backend()
except InputError as error:
    sys.exit(str(error))
