"""What the gradient checker sees, what it does not, and what it costs, beside its peers.

    python benchmarks/gradcheck_study.py [--quick] [--only SECTION]

Sections: detection, cost, mutants, black-box, thresholds, alarms. Peers that are not installed are left out (torch,
autograd, jax: ``pip install torch autograd jax``). Figures are medians or counts of this run on this machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests"), str(HERE.parent)]

import clean_checks
import gradcheck_peers
from mutants import functions, layers, network

import matbackprop as mb
from matbackprop.gradcheck import Verdict, check_gradient, measure, reference, verdict
from matbackprop.gradcheck.engine import run
from matbackprop.gradcheck.packing import Packing
from matbackprop.gradcheck.problem import Problem

#: P: (inputs, hidden, hidden, outputs).
SHAPES = {99: (5, 8, 5, 1), 11_342: (30, 100, 80, 2), 100_599: (50, 400, 199, 2)}
DELTAS = [10.0**k for k in range(-15, 4)]
#: The constants chosen by hand whose worth clean gradients show.
TOLERANCE = ("ROUNDING", "ABSOLUTE", "REST", "DEVIATIONS", "UNSEEN")
VERDICT = ("CHANCE", "CERTAIN", "NEAR", "HALF_THE_DIGITS", "SMALL", "BLIND", "COARSE", "CONFIRMED", "VAGUE")
TARGETS = ("all entries", "largest entry", "median entry")


def make_network(
    size: int, activation: str, loss_name: str, seed: int
) -> tuple[Callable[..., Any], Callable[..., Any], Any]:
    """Return fun, grad and x0 of a network as functions of one flat vector."""
    rng = np.random.default_rng([seed, size])
    a, b, c, d = SHAPES[size]
    middle = [mb.Tanh(), mb.Tanh()] if activation == "tanh" else [mb.ReLU(), mb.ReLU()]
    model = mb.Sequential(
        mb.Linear(a, b), middle[0], mb.Linear(b, c), middle[1], mb.Linear(c, d), mb.Sigmoid(), rng=rng
    )
    model.parameters = model.parameters + 0.05 * rng.standard_normal(model.parameters.size)
    x, y = rng.standard_normal((8, a)), rng.integers(0, 2, (8, d)).astype(float)
    loss = mb.MSE() if loss_name == "MSE" else mb.BCE()
    models = {np.dtype(np.float64): model}

    def at(p: Any) -> mb.Sequential:
        if p.dtype not in models:
            models[p.dtype] = model.astype(p.dtype)
        models[p.dtype].parameters = p
        return models[p.dtype]

    def fun(p: Any) -> Any:
        return np.asarray(at(p).backprop(x, y, loss))[()]

    def grad(p: Any) -> Any:
        return at(p).value_and_grad(x, y, loss)[1]

    return fun, grad, model.parameters.copy()


def spoiled(grad: Callable[..., Any], at_x0: Any, target: str, delta: float) -> Callable[..., Any]:
    """Return the gradient with a relative error in all entries, the largest, or the median one of those not zero."""
    order = np.argsort(np.abs(at_x0))
    order = order[np.abs(at_x0)[order] > 0]
    index: Any = (
        slice(None) if target == "all entries" else order[-1] if target == "largest entry" else order[len(order) // 2]
    )

    def wrong(p: Any) -> Any:
        g = grad(p).copy()
        g[index] *= 1 + delta
        return g

    return wrong


def ours(fun: Callable[..., Any], grad: Callable[..., Any], x0: Any) -> bool:
    return run(Problem(fun, grad, x0), np.random.default_rng(0), account=False).verdict is not Verdict.PASS


def threshold(caught: Callable[..., bool], fun: Any, grad: Any, x0: Any, target: str) -> float:
    """Return the smallest relative error that is caught, by bisection over the decades."""
    at_x0 = grad(x0)
    if caught(fun, grad, x0):
        return np.nan  # a false alarm: whatever it catches means nothing
    low, high = 0, len(DELTAS)
    while low < high:
        middle = (low + high) // 2
        if caught(fun, spoiled(grad, at_x0, target, DELTAS[middle]), x0):
            high = middle
        else:
            low = middle + 1
    return DELTAS[low] if low < len(DELTAS) else np.inf


def detection(quick: bool) -> None:
    print("\n## Detection: smallest relative error seen in at least 95 % of runs (MSE and BCE, tanh and ReLU)\n")
    checkers = {"matbackprop": ours, **gradcheck_peers.installed()}
    for size in SHAPES:
        for name, caught in checkers.items():
            dear = name in ("torch slow", "scipy")
            if dear and size > 1000:
                print(f"P = {size:>7,}  {name:<12} not run: of the order of P evaluations a check")
                continue
            seeds = 3 if quick else (20 if name == "matbackprop" or size < 1000 else 5)
            cells = []
            for target in TARGETS:
                found = [
                    threshold(caught, *make_network(size, activation, loss, seed), target)
                    for activation in ("tanh", "ReLU")
                    for loss in ("MSE", "BCE")
                    for seed in range(seeds)
                ]
                valid = sorted(f for f in found if not np.isnan(f))
                alarms = len(found) - len(valid)
                level = valid[int(np.ceil(0.95 * len(valid))) - 1] if valid else np.nan
                shown = "never (1e3)" if np.isinf(level) else "-" if np.isnan(level) else f"{level:.0e}"
                cells.append(f"{target} {shown}" + (f" [{alarms} false alarms]" if alarms else ""))
            print(f"P = {size:>7,}  {name:<12} {';  '.join(cells)}   ({4 * seeds} runs)", flush=True)


def alarms(quick: bool, workers: int = 1) -> None:
    count, first = (2_000 if quick else 100_000), 900_000
    print(f"\n## False alarms: {count:,} correct gradients, seeds {first} to {first + count - 1}\n")
    step = 500
    total: Counter[tuple[str, str]] = Counter()
    others = []
    with multiprocessing.Pool(workers) as pool:
        for counts, found in pool.imap_unordered(
            clean_checks.tally, [range(s, s + step) for s in range(first, first + count, step)]
        ):
            total += counts
            others += found
    verdicts: Counter[str] = Counter()
    for (_, name), n in total.items():
        verdicts[name] += n
    print("  " + ", ".join(f"{name}: {verdicts[name]:,}" for name in map(str, Verdict)))
    for kind in sorted({kind for kind, _ in total}):
        print(f"  {kind:<30}" + "  ".join(f"{v} {total[kind, v]:,}" for v in map(str, Verdict) if total[kind, v]))
    for reason, n in Counter(f"{kind.split(': ')[1]}: {reason[:90]}" for _, kind, reason in others).most_common(8):
        print(f"  {n:>6,}  {reason}")
    for seed, kind, reason in others:
        if ": FAIL" in kind:
            print(f"  seed {seed}: {kind}: {reason}")


def cost(quick: bool) -> None:
    print("\n## Cost of one check (tanh, BCE), medians of 9\n")
    for size in SHAPES:
        cost_at(size, *make_network(size, "tanh", "BCE", 0))


def cost_at(size: int, fun: Callable[..., Any], grad: Callable[..., Any], x0: Any) -> None:
    report = check_gradient(fun, grad, x0, rng=0)
    effort = f"{report.fun_calls} f, {report.grad_calls} g"
    rows: list[tuple[str, Callable[[], Any], str]] = [
        ("matbackprop", lambda: check_gradient(fun, grad, x0, rng=0), effort)
    ]
    for name, peer in gradcheck_peers.installed().items():
        if name in ("torch slow", "scipy") and size > 1000:
            continue
        calls = Counter[str]()
        peer(counted(fun, calls, "f"), counted(grad, calls, "g"), x0)
        rows.append((name, partial(peer, fun, grad, x0), f"{calls['f']} f, {calls['g']} g"))
    single = [("f", fun, x0), ("g", grad, x0), ("complex f", fun, x0 + 0j)]
    print(
        f"P = {size:>7,}  "
        + ", ".join(f"one {name} {milliseconds(partial(call, x)):.3f} ms" for name, call, x in single)
    )
    for name, call, text in rows:
        print(f"             {name:<12} {milliseconds(call):8.1f} ms   {text}", flush=True)


def counted(function: Callable[..., Any], calls: Counter[str], name: str) -> Callable[..., Any]:
    def call(x: Any) -> Any:
        calls[name] += 1
        return function(x)

    return call


def milliseconds(call: Callable[[], Any], repeats: int = 9) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def flat(mutant: Any) -> tuple[Callable[..., Any], Callable[..., Any], Any]:
    """Return a mutant's pair over one vector, as most peers want it."""
    fun, grad, x0 = mutant.pair()
    packing = Packing(x0)

    def vector(g: Any) -> Any:
        return np.concatenate([np.asarray(part).reshape(-1) for _, part in packing.arrays(g)])

    if grad is None:
        return lambda v: fun(packing.unpack(v))[0], lambda v: vector(fun(packing.unpack(v))[1]), packing.x0
    return lambda v: fun(packing.unpack(v)), lambda v: vector(grad(packing.unpack(v))), packing.x0


def mutants(quick: bool) -> None:
    everyone = [*network.MUTANTS, *layers.MUTANTS, *functions.MUTANTS]
    print(f"\n## {len(everyone)} planted bugs: caught, arrays named right, cause right\n")
    peers = gradcheck_peers.installed()
    totals: Counter[str] = Counter()
    print(f"  {'bug':<50}{'ours':>6}{'named':>7}{'cause':>7}" + "".join(f"{name:>12}" for name in peers))
    for mutant in everyone:
        report = mutant.report(seed=0)
        caught = report.verdict in (Verdict.FAIL, Verdict.PRECISION_LOSS)
        named = {f.parameter for f in report.findings if f.parameter} == mutant.where if mutant.where else caught
        cause = re.search(mutant.cause, report.cause) is not None
        marks = [gradcheck_peers_catch(peer, mutant) for peer in peers.values()]
        totals.update({"ours": caught, "named": named, "cause": cause, **dict(zip(peers, marks, strict=True))})
        row = [caught, named, cause, *marks]
        widths = [6, 7, 7, *[12] * len(marks)]
        print(
            f"  {mutant.name:<50}"
            + "".join(f"{'yes' if mark else '-':>{w}}" for mark, w in zip(row, widths, strict=True))
        )
    print(
        f"  {'of ' + str(len(everyone)):<50}{totals['ours']:>6}{totals['named']:>7}{totals['cause']:>7}"
        + "".join(f"{totals[n]:>12}" for n in peers)
    )


def gradcheck_peers_catch(peer: Any, mutant: Any) -> bool:
    return bool(peer(*flat(mutant)))


def black_box(quick: bool) -> None:
    print("\n## Functions that the complex step cannot enter: smallest relative error seen in at least 95 % of runs\n")
    from scipy.special import expit

    a = np.random.default_rng(0).standard_normal((40, 30))

    def lowered(x: Any) -> Any:
        return np.float32(np.sum(np.sin(np.asarray(x, np.float32)) ** 2))

    cases: dict[str, tuple[Any, Any]] = {
        "abs": (lambda x: (np.abs(x) ** 3).sum(), lambda x: 3 * x * np.abs(x)),
        "norm": (np.linalg.norm, lambda x: x / np.linalg.norm(x)),
        "scipy.special.expit": (
            lambda x: (expit(a @ x) ** 2).sum(),
            lambda x: a.T @ (2 * expit(a @ x) ** 2 * expit(-(a @ x))),
        ),
        "result cast by float()": (lambda x: float(np.sum(np.abs(np.sin(x)) ** 2)), lambda x: np.sin(2 * x)),
        "float32 buffers, float64 x": (lowered, lambda x: np.sin(2 * x)),
    }
    seeds = 5 if quick else 20
    for name, (fun, grad) in cases.items():
        points = [np.random.default_rng([7, seed]).standard_normal(30) for seed in range(seeds)]
        report = check_gradient(fun, grad, points[0], rng=0)
        cells = []
        for target in TARGETS:
            found = sorted(threshold(ours, fun, grad, x, target) for x in points)
            level = found[int(np.ceil(0.95 * len(found))) - 1]
            cells.append(f"{target} {level:.0e}")
        print(
            f"  {name:<28}{';  '.join(cells)}   {report.verdict}, {report.method}, {report.fun_calls} f, "
            f"{1e3 * report.seconds:.1f} ms"
        )
    try:
        import torch
    except ImportError:
        return
    torch.manual_seed(0)
    for label, dtype in (("torch module, float64", torch.float64), ("torch module, float32", torch.float32)):
        module = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2), torch.nn.Softmax(dim=1)
        ).to(dtype)
        report = check_gradient(module, torch.randn(6, 4, dtype=dtype), rng=0)
        print(
            f"  {label:<28}{report.verdict}, resolution {report.entry_resolution:.0e}, {report.method}, "
            f"{report.fun_calls} f, {1e3 * report.seconds:.1f} ms"
        )


def thresholds(quick: bool) -> None:
    """Each constant chosen by hand, smaller and larger: what it buys in false alarms and costs in digits."""
    count, first = (200 if quick else 3_000), 800_000
    print(f"\n## Constants chosen by hand: {count:,} correct gradients, seeds {first} to {first + count - 1}\n")
    for name in (*TOLERANCE, *VERDICT):
        holders = [module for module in (measure, verdict, reference) if hasattr(module, name)]  # by import, too
        chosen = getattr(holders[0], name)
        for factor in (0.0, 0.1, 0.3, 1.0, 3.0):
            for module in holders:
                setattr(module, name, factor * chosen)
            reports = [clean_checks.check(seed)[1] for seed in range(first, first + count)]
            failed = sum(report.verdict is Verdict.FAIL for report in reports)
            passed = [report.entry_resolution for report in reports if report]
            print(
                f"  {name:<15}{factor * chosen:>8g}   FAIL {failed:>5}   PASS {len(passed):>6,}   "
                f"median resolution {np.median(passed) if passed else np.nan:.1e}",
                flush=True,
            )
        for module in holders:
            setattr(module, name, chosen)


SECTIONS = {
    "detection": detection,
    "cost": cost,
    "mutants": mutants,
    "black-box": black_box,
    "thresholds": thresholds,
    "alarms": alarms,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="processes for the false alarms (default 1)")
    parser.add_argument("--quick", action="store_true", help="fewer seeds: a minute instead of half an hour")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section alone (may be repeated)")
    args = parser.parse_args()
    print(f"numpy {np.__version__}, peers: {', '.join(gradcheck_peers.installed()) or 'none'}")
    for name in args.only or SECTIONS:
        if name == "alarms":
            alarms(args.quick, args.workers)
        else:
            SECTIONS[name](args.quick)


if __name__ == "__main__":
    main()
