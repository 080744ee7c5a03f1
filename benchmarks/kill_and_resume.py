"""Kill a training run at random moments, resume it, and compare with one that was never killed, bit for bit.

    python benchmarks/kill_and_resume.py [--kills 20] [--suffix .npz] [--seed 0]

Each round trains digits in a process of its own with a checkpoint after every epoch, kills it with SIGKILL after a
random time, reads the file that is left, and starts it again, until the run has ended. Exit code 1 if any round ends
with other bits, or any file cannot be read.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

EPOCHS = 40


def train(path: Path | None, begin: Callable[[], None] = lambda: None) -> np.ndarray:
    """Run the training, or what is left of it, and return the parameters and losses."""
    import matbackprop as mb
    import matbackprop.files

    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 64), np.float32)
    y = rng.integers(0, 10, 2000)
    model = mb.Sequential(mb.Linear(64, 64), mb.ReLU(), mb.Linear(64, 10), rng=0, dtype=np.float32)
    fit = mb.fit
    begin()
    history = fit(
        model, x, y, mb.CrossEntropy(), mb.Adam(), epochs=EPOCHS, batch_size=64, validation=0.1, rng=1, progress=False,
        schedule=mb.CosineAnnealingLR(EPOCHS), checkpoint=path, resume=path is not None, early_stopping=EPOCHS,
    )  # fmt: skip
    return np.concatenate([model.parameters, history["loss"], history["validation_loss"]])


def main() -> int:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--suffix", choices=[".npz", ".safetensors"], default=".safetensors")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(Path(args.child), lambda: print("begun", flush=True))
        return 0

    from matbackprop.files import read_tensors

    rng = np.random.default_rng(args.seed)
    began = time.perf_counter()
    expected = train(None)
    whole = time.perf_counter() - began
    print(f"uninterrupted: {EPOCHS} epochs in {whole:.2f} s")
    wrong = unreadable = kills = rounds = left = 0
    while kills < args.kills:
        rounds += 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"run{args.suffix}"
            at = []
            while True:
                process = subprocess.Popen([sys.executable, __file__, "--child", str(path)], stdout=subprocess.PIPE)
                process.stdout.readline()
                try:
                    process.wait(rng.uniform(0, whole / 3) if kills < args.kills else None)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
                    if path.exists():
                        try:
                            at.append(len(read_tensors(path)[0]["history.loss"]))
                        except (ValueError, OSError) as error:
                            unreadable += 1
                            print(f"unreadable after kill {kills}: {error}")
                    else:
                        at.append(0)
                    continue
                finally:
                    process.stdout.close()
                break
            left += len(list(Path(folder).iterdir())) - 1
            same = process.returncode == 0 and np.array_equal(train(path), expected)  # train alone would hide a crash
            wrong += not same
            print(f"round {rounds}: killed after epochs {at}; {'the same bits' if same else 'OTHER BITS'}")
    print(f"{kills} kills, {rounds} rounds, {wrong} with other bits, {unreadable} unreadable, {left} files left over")
    return int(bool(wrong or unreadable))


if __name__ == "__main__":
    sys.exit(main())
