"""Handwritten digits, 8 x 8 pixels: a classifier with validation and early stopping, saved and loaded
again.

Needs scikit-learn, for the data alone. The first half of the 1797 digits is trained on and the
second is the test, the split that scikit-learn's own example has.
"""

from tempfile import TemporaryDirectory

import numpy as np
from sklearn.datasets import load_digits

import matbackprop as mb

x, y = load_digits(return_X_y=True)  # (1797, 64) in 0 ... 16, and classes 0 ... 9
x = x / 16
half = len(x) // 2
x_train, y_train, x_test, y_test = x[:half], y[:half], x[half:], y[half:]

model = mb.Sequential(
    mb.Linear(64, 128), mb.ReLU(), mb.Dropout(0.2), mb.Linear(128, 10),
    rng=0, dtype=np.float32,
)  # fmt: skip
print(model.summary())

history = mb.fit(
    model, x_train, y_train, mb.CrossEntropy(), mb.AdamW(3e-3, weight_decay=0.01),
    epochs=200, batch_size=32, validation=0.1, metrics={"accuracy": mb.accuracy}, early_stopping=20, rng=0,
)  # fmt: skip
print(history)
print(f"test accuracy: {mb.accuracy(model.predict(x_test), y_test):.3f}")

with TemporaryDirectory() as folder:
    mb.save(model, f"{folder}/digits.npz")
    again = mb.load(f"{folder}/digits.npz")
print("loaded model predicts the same:", np.array_equal(model.predict(x_test), again.predict(x_test)))
