"""The optimisers: SGD, Adam, AdamW, RMSprop.

With w the parameters, g the gradients, γ the learning rate, λ the weight decay and t the number of the step:

========  ==========================================================================================
SGD       u ← μ u + (1 - τ) g;  w ← w - γ u
Adam      m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  w ← w - γ m̂ / (√v̂ + ε)
          with m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)
AdamW     w ← (1 - γ λ) w, then Adam
RMSprop   v ← α v + (1 - α) g²;  w ← w - γ g / (√v + ε)
========  ==========================================================================================

Everywhere but in AdamW, weight decay adds λ w to g first. Names, defaults and the options' meaning are torch's, of
`torch.optim` 2.13, with which the trajectories agree to rounding (benchmarks/optimizer_agreement.py).
"""

from matbackprop.optimizers.adam import Adam, AdamW
from matbackprop.optimizers.rmsprop import RMSprop
from matbackprop.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "RMSprop"]
