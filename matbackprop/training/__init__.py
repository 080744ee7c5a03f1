"""Training: the loop over shuffled mini-batches, and what it leaves behind.

`loop` has `fit`, which puts a run together, and `run` what then happens. The data are looked at first (`examples`) and
come in batches (`batches`), the model is judged on others (`validation`), the run ends in time (`stopping`), can be
watched (`progress`), goes on after it was killed (`checkpoint`), and is remembered (`history`).
"""

from matbackprop.training.checkpoint import Checkpoint
from matbackprop.training.history import History
from matbackprop.training.loop import fit
from matbackprop.training.run import Epoch
from matbackprop.training.stopping import Diverged, EarlyStopping
from matbackprop.training.validation import accuracy

__all__ = ["Checkpoint", "Diverged", "EarlyStopping", "Epoch", "History", "accuracy", "fit"]
