"""Names of models and of ways to train them, for those who only speak of them: nothing here needs PyTorch."""

from __future__ import annotations

TITLES = {
    "m5": "M5", "lstm": "LSTM", "transformer": "Transformer", "cnn": "CNN (log-mel)", "cnn-tf": "CNN (TensorFlow MFCC)",
    "cnn-kaldi": "CNN (Kaldi banks)", "bc-resnet": "BC-ResNet-1", "small-strides": "small strides",
}  # fmt: skip
NAMES = ("m5", "lstm", "transformer", "cnn")  # those of the main tables
VICTIMS = ("cnn-tf", "cnn-kaldi", "bc-resnet", "small-strides")
TRAININGS = ("plain", "default", "mean-off")
