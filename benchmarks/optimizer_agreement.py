"""Print how far the optimisers' trajectories are from torch's: ``python benchmarks/optimizer_agreement.py``.

500 steps from the same start, once with the same given gradients, which shows the rules alone, and once each with its
own engine's gradients of the same mini-batches. The error of a step is the largest difference between the parameters
over the largest parameter, by torch; an entry of the table is the worst of all steps of all random draws. A rounding
step is 2.2e-16 in float64 and 1.2e-7 in float32.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

import matbackprop as mb

STEPS, DRAWS, BATCH = 500, 3, 64

OPTIMIZERS = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"betas": (0.8, 0.99), "eps": 1e-4}),
    ("Adam", {"amsgrad": True}),
    ("Adam", {"weight_decay": 0.01}),
    ("Adam", {"weight_decay": 0.01, "amsgrad": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    ("AdamW", {"amsgrad": True}),
    ("RMSprop", {"lr": 1e-3}),
    ("RMSprop", {"lr": 1e-3, "alpha": 0.9, "eps": 1e-4}),
    ("RMSprop", {"lr": 1e-3, "weight_decay": 0.01}),
    ("RMSprop", {"lr": 1e-3, "momentum": 0.9}),
    ("RMSprop", {"lr": 1e-3, "centered": True}),
    ("RMSprop", {"lr": 1e-3, "momentum": 0.9, "centered": True, "weight_decay": 0.01}),
]


def error(ours, theirs):
    """Return the largest difference between two arrays over the largest number in torch's."""
    theirs = theirs.detach().numpy()
    assert ours.dtype == theirs.dtype
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def compare_given(seed, dtype, name, settings):
    """Yield the error after each step along gradients of very different sizes."""
    rng = np.random.default_rng(seed)
    parameters = rng.normal(size=1000).astype(dtype)
    scale = 10.0 ** rng.uniform(-3, 3, 1000)
    theirs = torch.tensor(parameters.copy(), requires_grad=True)
    ours, optimizer = getattr(mb, name)(**settings), getattr(torch.optim, name)([theirs], **settings)
    for _ in range(STEPS):
        gradients = (rng.normal(size=1000) * scale).astype(dtype)
        theirs.grad = torch.tensor(gradients)
        optimizer.step()
        ours.step(parameters, gradients)
        yield error(parameters, theirs)


def compare_trained(seed, dtype, name, settings):
    """Yield the error after each step of training 8-16-3 with tanh and MSE."""
    rng = np.random.default_rng(seed)
    model = mb.Sequential(mb.Linear(8, 16), mb.Tanh(), mb.Linear(16, 3), dtype=dtype, rng=rng)
    twin = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    twin.to(getattr(torch, dtype)).load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    x = rng.normal(size=(1000, 8)).astype(dtype)
    y = (np.sin(x[:, :3]) + 0.1 * rng.normal(size=(1000, 3))).astype(dtype)
    ours, optimizer = getattr(mb, name)(**settings), getattr(torch.optim, name)(twin.parameters(), **settings)
    loss, loss_torch = mb.MSE(), torch.nn.MSELoss()
    for _ in range(STEPS):
        rows = rng.integers(0, 1000, BATCH)
        model.backprop(x[rows], y[rows], loss)
        ours.step(model.parameters, model.gradients)
        optimizer.zero_grad()
        loss_torch(twin(torch.tensor(x[rows])), torch.tensor(y[rows])).backward()
        optimizer.step()
        yield error(model.parameters, torch.cat([parameter.reshape(-1) for parameter in twin.parameters()]))


def main():
    torch.set_num_threads(1)  # two pools of threads get in each other's way
    print(f"matbackprop {mb.__version__} on NumPy {np.__version__}, against torch {torch.__version__}")
    columns = [f"{what}, {dtype}" for what in ("given", "trained") for dtype in ("f64", "f32")]
    print(f"\n| {f'{STEPS} steps':<78} |", " | ".join(f"{column:>12}" for column in columns), "|")
    print(f"|{'-' * 80}|", ":|".join("-" * 13 for _ in columns), ":|", sep="")
    for name, settings in OPTIMIZERS:
        worst = [
            max(max(compare(seed, dtype, name, settings)) for seed in range(DRAWS))
            for compare, dtype in product((compare_given, compare_trained), ("float64", "float32"))
        ]
        print(f"| {getattr(mb, name)(**settings)!r:<78} |", " | ".join(f"{value:>12.1e}" for value in worst), "|")


if __name__ == "__main__":
    main()
