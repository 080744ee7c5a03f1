"""Write optimizers.json: where torch's optimisers take five parameters under given gradients.

Run it with torch installed, ``python tests/golden/make_optimizers.py``. It uses torch and NumPy alone, and
tests/test_optimizers.py reads the file without torch. Parameters and gradients are random numbers of three decimals,
the same for both types; the gradients' sizes differ by factors of a thousand, and one parameter's are often zero.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np

TYPES = ("float64", "float32")
STEPS, KEPT = 40, (1, 2, 10, 40)
OPTIMIZERS = [
    ["SGD", {"lr": 0.1}],
    ["SGD", {"lr": 0.1, "weight_decay": 0.2}],
    ["SGD", {"lr": 0.1, "momentum": 0.9}],
    ["SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.5, "weight_decay": 0.01}],
    ["SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}],
    ["Adam", {}],
    ["Adam", {"lr": 0.1, "betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 0.1}],
    ["Adam", {"lr": 0.1, "betas": [0.0, 0.5], "amsgrad": True}],
    ["AdamW", {}],
    ["AdamW", {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}],
    ["RMSprop", {}],
    ["RMSprop", {"lr": 0.03, "alpha": 0.9, "eps": 1e-4, "momentum": 0.7, "weight_decay": 0.1}],
    ["RMSprop", {"lr": 0.03, "centered": True}],
    ["RMSprop", {"lr": 0.03, "centered": True, "momentum": 0.7, "weight_decay": 0.1}],
]


def exact(tensor):
    """Return a tensor's numbers, each in the fewest digits from which its type reads it back."""
    return [float(str(value)) for value in tensor.detach().numpy()]


def trajectory(torch, spec, start, gradients, dtype):
    """Return the parameters after some of the steps."""
    parameters = torch.tensor(start, dtype=dtype, requires_grad=True)
    name, settings = spec
    optimizer = getattr(torch.optim, name)([parameters], foreach=False, **settings)
    kept = {}
    for step, gradient in enumerate(gradients, 1):
        parameters.grad = torch.tensor(gradient, dtype=dtype)
        optimizer.step()
        if step in KEPT:
            kept[step] = exact(parameters)
    return kept


def main():
    """Compute everything and write the file, one case a line."""
    import torch

    rng = np.random.default_rng(0)
    start = rng.normal(size=5).round(3).tolist()
    gradients = (rng.normal(size=(STEPS, 5)) * [1, 1000, 10, 0.1, 1]).round(3)
    gradients[:, 4] *= rng.random(STEPS) < 0.3
    gradients = gradients.tolist()
    about = {"torch": torch.__version__, "date": dt.date.today().isoformat()}
    cases = [
        {"optimizer": spec, **{n: trajectory(torch, spec, start, gradients, getattr(torch, n)) for n in TYPES}}
        for spec in OPTIMIZERS
    ]
    head = [f'"{key}": {json.dumps(value)}' for key, value in (("about", about), ("start", start))]
    head.append(f'"gradients": {json.dumps(gradients, separators=(",", ":"))}')
    rows = ",\n".join(json.dumps(case, separators=(",", ":"), allow_nan=False) for case in cases)
    text = "{\n" + ",\n".join([*head, f'"cases": [\n{rows}\n]']) + "\n}\n"
    Path(__file__).with_name("optimizers.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
