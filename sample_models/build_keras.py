"""Train `keras_cnn.onnx` with Keras and export it with tf2onnx: `python sample_models/build_keras.py`.

TensorFlow wants its own pins, so give it a virtual environment of its own:

    python -m venv /tmp/keras
    /tmp/keras/bin/pip install tensorflow-cpu==2.21.0 tf2onnx==1.17.0 onnxruntime scikit-learn pillow
    /tmp/keras/bin/python sample_models/build_keras.py

Trains on the same renders as build.py and is judged on data/eval_nhwc.npz, which build.py writes.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import digits
import judge
import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers

SEED = 0
RENDERS = 24_000
EPOCHS = 6
BATCH = 64
RATE = 3e-3
HERE = Path(__file__).resolve().parent


def block(x: keras.KerasTensor, channels: int, stride: int) -> keras.KerasTensor:
    """A 3x3 convolution, then depthwise and pointwise convolutions beside a shortcut."""
    x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False)(x)
    x = shortcut = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Conv2D(channels, 1, use_bias=False)(x)
    return layers.Add()([layers.BatchNormalization()(x), shortcut])


def network() -> keras.Model:
    """[n, 32, 32, 3] -> [n, 10]; both poolings are concatenated, flattened and classified by two dense layers."""
    image = keras.Input((digits.SIDE, digits.SIDE, 3), name="image")
    x = block(block(block(image, 24, 1), 48, 2), 96, 2)
    x = layers.Concatenate()([layers.AveragePooling2D(2)(x), layers.MaxPooling2D(2)(x)])
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(digits.CLASSES)(x))


def main() -> None:
    """Train, export, judge."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(SEED)
    part = digits.load_parts(SEED)["train"]
    pixels, labels = digits.render(part, RENDERS, digits.stream(part, SEED))
    images = pixels.astype(np.float32) / np.float32(255)

    model = network()
    steps = EPOCHS * len(images) // BATCH
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=RATE, warmup_steps=steps // 8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.02), loss, metrics=["accuracy"])
    model.fit(images, labels, batch_size=BATCH, epochs=EPOCHS, verbose=2)

    signature = [tf.TensorSpec((None, digits.SIDE, digits.SIDE, 3), tf.float32, name="image")]
    forward = tf.function(lambda image: {"logits": model(image, training=False)}, input_signature=signature)
    path = HERE / "keras_cnn.onnx"
    tf2onnx.convert.from_function(forward, input_signature=signature, opset=17, output_path=str(path))
    with np.load(HERE / "data" / "eval_nhwc.npz") as data:
        judge.record(path, "Keras 3, tf2onnx", data["image"], data["labels"])


if __name__ == "__main__":
    main()
