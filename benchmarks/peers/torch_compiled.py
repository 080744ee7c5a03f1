"""torch.compile: the network with its loss in one compiled function, forward and backward; the fused Adam.

`dynamic=True`: one compilation serves all batch sizes but 1, which has its own. A compilation takes seconds, and a
sweep has hundreds of cells. What was compiled is found again in torch's own cache on disk.
"""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.peers import Prepared, torch_eager
from benchmarks.task import Case

threads = torch_eager.threads

#: The processes that compile on the side would not stop when this one is told to.
torch._inductor.config.compile_threads = 1


def prepare(case: Case) -> Prepared:
    """Return the task."""
    return torch_eager.prepare(case, compiled=partial(torch.compile, dynamic=case.rows > 1))
