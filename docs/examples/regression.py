"""Disease progression of 442 diabetes patients: a regression with standardised inputs and targets.

Needs scikit-learn, for the data alone. Targets from 25 to 346 are brought to mean 0 and variance 1
for training: the network starts near 0, and steps that suit weights of order 1 suit it. Predictions
are brought back. The linear fit by least squares stands beside, as what a network has to beat: on
so few rows it does, by little or not at all.
"""

import numpy as np
from sklearn.datasets import load_diabetes

import matbackprop as mb

x, y = load_diabetes(return_X_y=True, scaled=False)
rng = np.random.default_rng(0)
order = rng.permutation(len(x))
train, test = order[:342], order[342:]

x_mean, x_std = x[train].mean(axis=0), x[train].std(axis=0)
y_mean, y_std = y[train].mean(), y[train].std()
a = (x - x_mean) / x_std
t = (y[:, None] - y_mean) / y_std  # (N, 1): a column, as the model's output

model = mb.Sequential(mb.Linear(10, 16), mb.Tanh(), mb.Linear(16, 1), rng=0)
history = mb.fit(
    model, a[train], t[train], mb.Huber(), mb.Adam(0.01),
    epochs=300, batch_size=32, validation=0.2, early_stopping=30, penalty=mb.L2(0.01),
    schedule=mb.ReduceLROnPlateau(patience=10), rng=0, progress=False,
)  # fmt: skip
print(history)

predicted = model.predict(a[test])[:, 0] * y_std + y_mean
columns = np.c_[a, np.ones(len(a))]
linear = columns[test] @ np.linalg.lstsq(columns[train], y[train])[0]
for name, values in (("the mean", np.full(len(test), y_mean)), ("linear", linear), ("network", predicted)):
    print(f"{name:>8}: root mean square error {np.sqrt(np.mean((values - y[test]) ** 2)):5.1f}")
