"""The benchmarks' own logic: what is compared, what is timed, how a budget is kept, and what a run comes to."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import setup
from benchmarks.budget import FEWEST, MOST, Budget
from benchmarks.machine import cores as usable_cores
from benchmarks.machine import describe
from benchmarks.peers import PEERS, Prepared, installed, prepare
from benchmarks.pool import Failure, Pool, Process
from benchmarks.report import page
from benchmarks.results import Cell, cells, geometric_mean, read, summarise, write
from benchmarks.sweep import Sweep, arguments, grid, spelled
from benchmarks.task import (
    BRISK_LR,
    BRISK_ROWS,
    BRISK_STEPS,
    TASKS,
    TRIAL_STEPS,
    Case,
    Disagreement,
    Network,
    as_network,
    compare,
    expected,
)
from benchmarks.worker import SAMPLE, Worker, calibrate, turn

NETWORKS = ("3-4-2:relu", "3-4-2:tanh:cross_entropy", "3-5-2:sigmoid:bce_logits")
posix = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a system that can stop a process")


# Networks and cases.


def test_networks_are_read_and_named() -> None:
    assert as_network("784-128-10:relu:cross_entropy") == Network((784, 128, 10), "relu", "cross_entropy")
    deep = as_network("32-32x16-1")
    assert deep.widths == (32,) * 17 + (1,)
    assert deep.activation == "tanh"
    for network in (deep, as_network("2-2-2-1"), as_network("4-3::bce_logits")):
        assert as_network(str(network)) == network


@pytest.mark.parametrize("text", ["", "3", "3-x-1", "3-0-1", "3-2x0-1", "3-1:gelu", "3-1:tanh:hinge", "3-1:relu:mse:x",
                                  "3-1:relu:cross_entropy"])  # fmt: skip
def test_bad_networks_are_refused(text) -> None:
    with pytest.raises(ValueError, match="network"):
        as_network(text)


def test_parameters_are_split_in_the_library_s_order() -> None:
    network = as_network("2-3-1")
    (w0, b0), (w1, b1) = network.split(np.arange(network.size))
    assert (w0.shape, b0.tolist(), w1.shape, b1.tolist()) == ((3, 2), [6, 7, 8], (1, 3), [12])


# The expected values: by differences, since everything else is compared with them.


@pytest.mark.parametrize("network", NETWORKS)
def test_expected_gradient_by_central_differences(network, monkeypatch) -> None:
    case = Case(as_network(network), 7, "float64", "backprop")
    gradient = expected(case)["gradient"]
    batch, step = case.batch(), 1e-6

    def value(parameters: np.ndarray) -> float:
        monkeypatch.setattr(Case, "batch", lambda self: batch._replace(parameters=parameters))
        return expected(case)["value"]

    for index in range(len(gradient)):
        shift = np.zeros_like(gradient)
        shift[index] = step
        slope = (value(batch.parameters + shift) - value(batch.parameters - shift)) / (2 * step)
        assert slope == pytest.approx(gradient[index], abs=1e-8)


def test_expected_values_do_not_depend_on_their_blocks(monkeypatch) -> None:
    case = Case(as_network(NETWORKS[1]), 50, "float64", "backprop")
    whole = expected(case)
    monkeypatch.setattr("benchmarks.task.BLOCK", 16)
    parts = expected(case)
    assert parts["value"] == pytest.approx(whole["value"], rel=1e-14)
    np.testing.assert_allclose(parts["gradient"], whole["gradient"], rtol=0, atol=1e-15)


# Agreement.


def trial(peer: str, case: Case) -> dict[str, np.ndarray]:
    prepared = prepare(peer, case)
    for _ in range(TRIAL_STEPS if case.task == "train" else 1):
        result = prepared.step()
    return prepared.collect(result)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("peer", ["ours", "torch", "sklearn", "autograd", "mygrad", "onnxruntime"])
def test_peers_agree(peer, network, task, dtype) -> None:
    if task not in PEERS[peer].tasks:
        pytest.skip("not its task")
    try:
        installed(peer)
    except ImportError as error:
        pytest.skip(str(error))
    for rows in (1, 9):
        case = Case(as_network(network), rows, dtype, task)
        compare(case, trial(peer, case), expected(case))
    if task == "train":
        case = Case(as_network(network), BRISK_ROWS, dtype, task)
        compare(case, Worker(peer, 1).brisk(network, dtype), expected(case, BRISK_LR, BRISK_STEPS))


@pytest.mark.parametrize(
    ("task", "spoil"),
    [
        ("backprop", lambda r: r | {"value": r["value"] * 1.001}),
        ("backprop", lambda r: r | {"value": float("nan")}),
        ("backprop", lambda r: r | {"gradient": r["gradient"] * 2}),
        ("backprop", lambda r: r | {"gradient": r["gradient"][::-1]}),
        ("backprop", lambda r: r | {"gradient": r["gradient"].astype(np.float64)}),
        ("train", lambda r: r | {"change": r["change"] * 0.9}),
        ("train", lambda r: r | {"change": -r["change"]}),
        ("predict", lambda r: r | {"output": r["output"][:, :1]}),
        ("predict", lambda r: r | {"output": r["output"] + 1e-3}),
    ],
)
def test_a_wrong_peer_is_caught(task, spoil) -> None:
    case = Case(as_network(NETWORKS[0]), 9, "float32", task)
    right = trial("ours", case)
    compare(case, right, expected(case))
    with pytest.raises(Disagreement):
        compare(case, spoil(right), expected(case))


def test_setup_is_what_a_benchmark_calls() -> None:
    assert isinstance(setup("2-2-1", 3, "float64", "backprop")(), float)
    assert setup("2-2-1", 3, "float32", "predict")().shape == (3, 1)
    assert setup("2-2-1", 3, "float32", "backprop", peer="floor")() is None


# Timing.


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_sample_is_long_enough_for_the_timer(monkeypatch) -> None:
    clock = Clock()
    monkeypatch.setattr("benchmarks.worker.perf_counter_ns", lambda: int(clock.now))
    for each in (100, 7_000, 299_999, 300_000, 5_000_000):

        def step(each=each) -> None:
            clock.now += each

        calls = calibrate(step)
        assert calls * each >= SAMPLE
        assert calls == 1 or calls * each <= 4 * SAMPLE
        assert turn(step, calls, 3) == [each] * 3


def simulate(seconds: float, cost, keys) -> tuple[Budget, list[int], float]:
    """Run a budget over cells whose rounds take `cost(case)`, and return it, the rounds, and the time it took."""
    clock = Clock()
    budget = Budget(seconds, keys, peers=8, clock=clock)
    given, running = [], None
    while (key := budget.next(running)) is not None:
        if running != budget.kind(key):
            clock.now, running = clock.now + 12, budget.kind(key)
            budget.started()
        each = cost(key[1])
        clock.now += 0.3 + 1.5 * each
        rounds = budget.rounds(key, each)
        clock.now += max(0, rounds - 1) * each
        if rounds:
            given.append(rounds)
    return budget, given, clock.now


@pytest.mark.parametrize("speed", [2e8, 1e9, 1e10, 1e11])
def test_the_budget_is_kept_and_no_cell_has_too_few_rounds(speed) -> None:
    keys = grid(arguments(["--cores", "1"]))
    budget, given, took = simulate(1500, lambda case: 0.02 + 8 * case.multiplications() / speed, keys)
    assert took <= 1500
    assert len(given) + len(budget.dropped) == len(keys)
    assert all(FEWEST <= rounds <= MOST for rounds in given)
    if speed > 1e10:
        assert not budget.dropped
    if budget.dropped:  # long cells, of the largest batch sizes
        assert took >= 0.5 * 1500
        assert min(case.rows for _, case in budget.dropped) >= 256


def test_more_time_gives_more_rounds() -> None:
    keys = grid(arguments(["--cores", "1", "--batches", "64", "1024"]))
    some = [sum(simulate(minutes * 60, lambda case: 0.1, keys)[1]) for minutes in (2, 4, 8)]
    assert some[0] < some[1] < some[2]


# The command line.


def test_anything_can_be_asked_for_on_the_command_line() -> None:
    words = ["--networks", "5-4-3", "2-1:relu:bce_logits", "--loss", "cross_entropy", "--activation", "sigmoid",
             "--batches", "3", "--dtypes", "float64", "--tasks", "train", "--cores", "1",
             "--peers", "floor", "jax"]  # fmt: skip
    args = arguments(words)
    assert list(map(str, args.networks)) == ["5-4-3:sigmoid:cross_entropy", "2-1:relu:bce_logits"]
    assert args.peers == ["floor", "jax"]
    assert [(count, case.rows, case.dtype, case.task) for count, case in grid(args)] == [(1, 3, "float64", "train")] * 2
    assert spelled("2-1", None, None) == "2-1::"


def test_quick_leaves_what_is_given() -> None:
    args = arguments(["--quick", "--dtypes", "float64"])
    assert args.minutes == 2
    assert args.dtypes == ["float64"]
    assert "torch.compile" not in args.peers


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "sweep"),
        (["--minutes", "40"], "sweep"),
        (["--peers", "torch"], "part"),
        (["--batches=1"], "part"),
        (["--quick"], "quick"),
        (["--quick", "--cores", "2"], "quick"),
        (["--output", "x/mine.json.gz", "--batches", "1"], "mine"),
    ],
)
def test_a_part_does_not_take_the_whole_sweeps_place(words, name) -> None:
    assert arguments(words).output.name == f"{name}.json.gz"


@pytest.mark.parametrize(
    "words", [["--networks", "3-1:gelu"], ["--batches", "0"], ["--peers", "keras"], ["--cores", "0"]]
)
def test_a_wrong_command_line_says_so(words, capsys) -> None:
    with pytest.raises(SystemExit):
        arguments(words)
    assert "error:" in capsys.readouterr().err


# A run of one cell.


@posix
def test_a_run_of_one_cell(tmp_path, capsys) -> None:
    case = Case(as_network("2-2-1"), 3, "float64", "backprop")
    sweep = Sweep(["ours", "floor"], [(1, case)], seconds=60)
    sweep.run()
    path = tmp_path / "run.json.gz"
    write(path, sweep.results())
    results = read(path)
    (cell,) = cells(results)
    head, line = [line.split() for line in capsys.readouterr().out.splitlines() if not line.startswith("#")][1:]
    assert head[-2:] == ["floor", "rounds"]
    assert line[1] == "2-2-1:tanh"
    assert line[-2:] == [f"{cell.floor().median:.2f}", f"{len(cell.rounds['ours'])}"]
    assert set(cell.rounds) == {"ours", "floor"}
    assert FEWEST <= len(cell.rounds["ours"]) <= MOST
    assert cell.record["agreement"]["ours"]["gradient"] < 1e-14
    assert 0 < cell.time("floor").median < cell.time("ours").median  # the step holds the same products
    about = results["groups"][0]["workers"]["ours"]
    assert len(about["cores"]) == 1 or not hasattr(os, "sched_setaffinity")
    assert about["environment"]["OPENBLAS_NUM_THREADS"] == "1"
    assert "# The last full run" in page(results, [])


@posix
def test_peers_that_fail_or_disagree_are_left_out_by_name(monkeypatch, capsys) -> None:
    case = Case(as_network("2-2-1"), 3, "float64", "backprop")
    honest = Process.call

    def call(self, name, *arguments, **kwargs):
        result = honest(self, name, *arguments, **kwargs)
        if self.peer == "floor" and name == "turn":
            raise Failure("struck by lightning")
        return result

    monkeypatch.setattr(Process, "call", call)
    sweep = Sweep(["ours", "floor"], [(1, case)], seconds=60)
    sweep.run()
    (record,) = sweep.cells
    assert set(record["samples"]) == {"ours"}
    assert record["left_out"] == {"floor": "struck by lightning"}

    monkeypatch.setattr("benchmarks.sweep.expected", lambda case: {"value": 0.123, "gradient": np.ones(9)})
    sweep = Sweep(["ours"], [(1, case)], seconds=60)
    sweep.run()
    assert sweep.cells == []
    assert "matbackprop itself" in sweep.left_out[str(case)]
    assert "ours left out of 2-2-1:tanh N=3 backprop: value: relative difference" in capsys.readouterr().out


@posix
def test_jax_agrees_in_a_process_of_its_own() -> None:
    try:
        installed("jax")
    except ImportError as error:
        pytest.skip(str(error))
    with Pool(["jax"], usable_cores()[:1], "float64") as pool:
        for network, task in zip(NETWORKS, TASKS, strict=True):
            case = Case(as_network(network), 9, "float64", task)
            compare(case, pool.processes["jax"].call("prepare", network, 9, "float64", task), expected(case))


@posix
def test_a_worker_is_stopped_unless_it_is_its_turn() -> None:
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    with Pool(["ours", "nobody"], usable_cores()[:1], "float32") as pool:
        assert "nobody" in pool.left_out
        process = pool.processes["ours"]

        def state() -> str:
            return Path(f"/proc/{process.process.pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0]

        for _ in range(100):
            if state() == "T":
                break
            time.sleep(0.01)
        assert state() == "T"
        with pytest.raises(Failure, match="ValueError: network"):
            process.call("prepare", "2-x", 1, "float32", "backprop")
        process.call("prepare", "2-1", 1, "float32", "backprop")
        process.call("clear")
        with pytest.raises(Failure, match="AssertionError"):
            process.call("turn", 1, 1)
        process.process.kill()
        with pytest.raises(Failure, match="ended"):
            process.call("clear")
    assert process.process.poll() is not None


# What a run comes to.


def record(rows: int, **samples: list[list[float]]) -> dict[str, object]:
    return {"network": "2-2-1:tanh", "dtype": "float32", "rows": rows, "cores": 1, "task": "backprop",
            "left_out": {"mygrad": "gone | away"}, "agreement": {}, "calls": {}, "samples": samples}  # fmt: skip


@pytest.fixture
def results() -> dict[str, object]:
    """Return a run of three cells by hand: torch twice and half as slow, JAX 4 times; floors of 80 µs and 2 ms."""
    made = [
        record(1, ours=[[10, 12], [10, 10], [20, 20]], torch=[[20, 22], [22, 20], [22, 22]], floor=[[2, 2]] * 3),
        record(
            64, ours=[[100.0, 100.0]] * 3, torch=[[50.0, 50.0]] * 3, jax=[[400.0, 400.0]] * 3, floor=[[80.0, 80.0]] * 3
        ),
        record(4096, ours=[[3000.0, 3000.0]] * 3, floor=[[2000.0, 2000.0]] * 3),
    ]
    return {"schema": 1, "machine": describe(), "left_out": {"mygrad": "not installed"}, "groups": [],
            "dropped": [{"cores": 2, "case": "9-9"}], "cells": made}  # fmt: skip


def test_ratios_means_and_floors(results) -> None:
    first, second, third = cells(results)
    assert first.time("ours").median == 11  # of the rounds' medians 11, 10, 20
    assert first.ratio("torch").median == pytest.approx(21 / 11)
    assert first.ratio("torch").low == pytest.approx((22 / 20 + 21 / 11) / 2)
    assert second.best() == ("torch", (0.5, 0.5, 0.5))
    assert third.best() is None
    assert [cell.floor_goal() for cell in (first, second, third)] == [None, 1.3, 1.1]
    summary = summarise([first, second, third])
    assert (summary.compared, summary.ahead) == (2, 1)
    assert summary.means["torch"][:3] == (2, pytest.approx((21 / 11 * 0.5) ** 0.5), 0.5)
    assert summary.means["jax"] == (1, pytest.approx(4), 4, 0)
    assert summary.floors == [(1e-3, 1.1, 1, 0), (50e-6, 1.3, 1, 1)]
    assert np.isnan(geometric_mean([]))


def test_the_page_names_every_cell_in_which_a_peer_is_faster(results) -> None:
    text = page(results, ["figures/time-backprop-1.svg"])
    assert "**1 of 2 cells (50%)**" in text
    section = text.split("## Where a peer is faster")[1].split("\n## ")[0]
    assert "| 2-2-1:tanh float32, backprop, N = 64, 1 core | torch | 100.0 | 0.50 (0.50 to 0.50) |" in section
    assert "N = 1," not in section
    assert "4,096, 1 core | 2,000 | 1.50" in text.split("Beyond the goal")[1]
    assert "figures/time-backprop-1.svg" in text
    assert "9-9, 2 cores" in text
    assert "gone / away" in text
    del results["cells"][1]
    assert "Nowhere in this run." in page(results, [])


def test_figures_are_drawn(results, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.plot import write_figures

    paths = write_figures(cells(results), tmp_path, ["svg", "png"])
    assert sorted(path.name for path in paths) == ["ratio-backprop-1.png", "ratio-backprop-1.svg",
                                                   "time-backprop-1.png", "time-backprop-1.svg"]  # fmt: skip
    assert all(path.stat().st_size > 1000 for path in paths)


def test_a_file_of_something_else_is_refused(tmp_path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"schema": 7}), "utf-8")
    with pytest.raises(ValueError, match="no results"):
        read(path)


def test_fast_path_and_plain_layers_agree() -> None:
    from benchmarks.fast_path import difference

    for workers in (None, 1, 2):
        assert max(difference(as_network("5-40-2:relu"), 2000, "float64", workers)) < 1e-14


def test_cell_without_samples_of_ours_does_not_count(results) -> None:
    del results["cells"][0]["samples"]["ours"]
    assert len(cells(results)) == 2
    assert Cell(results["cells"][1]).peers == ["torch", "jax"]
    assert isinstance(prepare("ours", Case(as_network("2-1"), 1, "float32", "predict")), Prepared)
