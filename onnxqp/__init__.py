"""onnxqp: make a trained ONNX model smaller and faster, from one command, with proof."""

__version__ = "0.1.0"
