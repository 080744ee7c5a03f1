"""A layer and a loss of one's own: written in a dozen lines, checked, and then trained.

The layer is SiLU with a learned slope, a = z σ(β z), one β a feature. With s = σ(β z) and s' = s (1
- s),

    ∂L/∂z = Δ ⊙ (s + β z s'),    ∂L/∂β = Σ over rows of Δ ⊙ z² s'.

The loss is log cosh(ŷ - y): quadratic near 0 like MSE, linear far out like |ŷ - y|, and smooth
everywhere. Its derivative is tanh(ŷ - y).
"""

import numpy as np

import matbackprop as mb


class SlopedSiLU(mb.Layer):
    """a = z σ(β z), β learned."""

    rowwise = True  # each row is treated alone
    beta = mb.Parameter()
    beta_grad = mb.Gradient("beta")

    def __init__(self, features):
        self.in_features = features
        self.beta = np.ones(features)

    def forward(self, x, out=None):
        self.z = x
        self.s = 1 / (1 + np.exp(-self.beta * x))
        return np.multiply(x, self.s, out=out)

    def backward(self, delta, out=None):
        slope = self.s * (1 - self.s)
        self.beta_grad = (delta * self.z**2 * slope).sum(axis=0)
        return np.multiply(delta, self.s + self.beta * self.z * slope, out=out)


class LogCosh(mb.Loss):
    """log cosh(ŷ - y), in a form that does not overflow: |e| + log1p(exp(-2|e|)) - log 2."""

    rowwise = True

    def elementwise(self, y_pred, y_true):
        error = y_pred - y_true
        size = np.where(error.real < 0, -error, error)  # |e|, off the real axis too, for the checker
        return size + np.log1p(np.exp(-2 * size)) - np.log(2), np.tanh(error)


rng = np.random.default_rng(0)
x = rng.uniform(-3, 3, (400, 1))
y = np.sin(2 * x) + 0.1 * rng.standard_t(1.5, x.shape)  # heavy tails: some points are far off

model = mb.Sequential(mb.Linear(1, 32), SlopedSiLU(32), mb.Linear(32, 32), SlopedSiLU(32), mb.Linear(32, 1), rng=0)
print(mb.check_layer(SlopedSiLU(3), rng.standard_normal((5, 3)), rng=0))
print(mb.check_model(model, LogCosh(), x[:20], y[:20], rng=0))

grid = np.linspace(-3, 3, 200)[:, None]
for loss in (mb.MSE(), LogCosh()):
    fresh = model.copy()
    mb.fit(fresh, x, y, loss, mb.Adam(0.01), epochs=200, batch_size=40, rng=0, progress=False)
    error = np.abs(fresh.predict(grid) - np.sin(2 * grid)).mean()
    print(f"trained on {loss}: mean distance from sin(2 x) {error:.3f}")
