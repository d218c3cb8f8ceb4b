"""Options of commands that detect persons."""

from dataclasses import dataclass

from keras_reid import detection
from keras_reid.cli.options import option
from keras_reid.cli.startup import import_keras
from keras_reid.detection.formats import FORMATS


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """Detector of persons."""

    detector: str | None = option(
        "Detector of persons: ssdlite, hog (OpenCV), or the file of a network: .onnx (YOLOv8 and "
        "later, YOLOX, RT-DETR), .tflite, or .pb of TensorFlow's Object Detection API from a "
        "trusted source. Default: ssdlite if it is installed, else hog.",
        topic="data",
    )
    detector_format: str | None = option(
        "Format of an .onnx detector; yolo_nms: with built-in suppression. Default: recognized "
        "from the outputs.",
        choices=tuple(FORMATS),
        topic="data",
    )

    def load_detector(self) -> detection.Detector:
        """Return the detector of the flags."""
        if detection.uses_tensorflow(self.detector):
            import_keras()
        return detection.detector_of(self.detector, self.detector_format)
