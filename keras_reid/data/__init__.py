"""Person images on disk: readers, checks, PK batches, and a drawn data set to start with."""

from keras_reid.data import synthetic
from keras_reid.data.checking import CheckReport, check
from keras_reid.data.decode import decodable, readable, unfit
from keras_reid.data.images import PersonImages, ReidDataset
from keras_reid.data.layouts import SUFFIXES, unlabelled
from keras_reid.data.pairs import pair_batches
from keras_reid.data.pipeline import image_batches, pk_batches
from keras_reid.data.readers import load
from keras_reid.data.sampling import pk_steps
from keras_reid.data.writing import write

__all__ = [
    "SUFFIXES",
    "CheckReport",
    "PersonImages",
    "ReidDataset",
    "check",
    "decodable",
    "image_batches",
    "load",
    "pair_batches",
    "pk_batches",
    "pk_steps",
    "readable",
    "synthetic",
    "unfit",
    "unlabelled",
    "write",
]
