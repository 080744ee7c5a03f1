"""Fashion-MNIST, 60,000 pictures of 28 x 28 pixels: 784-100-10 with ReLU.

    python fashion_mnist.py [FOLDER]

reads the four files from FOLDER, or from where Debian's package dataset-fashion-mnist puts them.
Zalando's own table of results has .871 for scikit-learn's network of this shape
(https://github.com/zalandoresearch/fashion-mnist).
"""

import sys
from time import perf_counter

import numpy as np

import matbackprop as mb
from matbackprop.datasets import load_fashion_mnist

train, test = load_fashion_mnist(*sys.argv[1:2])
model = mb.Sequential(mb.Linear(784, 100), mb.ReLU(), mb.Linear(100, 10), rng=0, dtype=np.float32)

began = perf_counter()
history = mb.fit(
    model, train.x, train.y, mb.CrossEntropy(), mb.Adam(2e-3),
    epochs=15, batch_size=128, schedule=mb.CosineAnnealingLR(15), rng=0,
)  # fmt: skip
seconds = perf_counter() - began
print(f"test accuracy {mb.accuracy(model.predict(test.x), test.y):.4f} after {history.epochs} epochs, {seconds:.1f} s")
