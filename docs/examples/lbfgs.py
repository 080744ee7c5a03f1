"""A small problem without mini-batches: SciPy's quasi-Newton, trust-region and least-squares methods.

One period and a half of a sine through 40 noisy points. Where all data fit in one batch and the
network is small, these methods need no learning rate and reach a minimum, not its neighbourhood.
"""

import numpy as np
from scipy.optimize import least_squares, minimize

import matbackprop as mb

rng = np.random.default_rng(0)
x = np.linspace(-1, 1, 40)[:, None]
y = np.sin(5 * x) + 0.05 * rng.standard_normal(x.shape)
model = mb.Sequential(mb.Linear(1, 10), mb.Tanh(), mb.Linear(10, 1), rng=0)

f = mb.objective(model, x, y, mb.MSE(), penalty=mb.L2(1e-5))
print(f"start:         loss {f(f.x0)[0]:.6f}")

result = minimize(f, f.x0, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "maxfun": 5000})
print(f"L-BFGS-B:      loss {result.fun:.6f}, gradient {np.abs(f(result.x)[1]).max():.0e}, {result.nfev} evaluations")

result = minimize(f, result.x, jac=True, hessp=f.hessp, method="trust-ncg", options={"gtol": 1e-9})
print(f"trust-ncg:     loss {result.fun:.6f}, gradient {np.abs(f(result.x)[1]).max():.0e}, {result.nit} iterations on")

model.parameters = result.x
print(f"in the model:  mean square error {mb.MSE()(model.predict(x), y):.6f}; the noise has 0.0025")

f = mb.objective(model, x, y, mb.MSE())
result = least_squares(f.residuals, f.x0, f.jacobian)
print(f"least squares: mean square error {f(result.x)[0]:.6f}, without the penalty")
