"""Draw the results of a sweep: `python -m benchmarks.plot benchmarks/results/sweep.json.gz`.

For each task and number of cores two figures, as PNG and SVG: the time of a row, and the best peer's time over ours,
over the batch size. Lines are medians, bands the middle half of the rounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.machine import on
from benchmarks.peers import PEERS
from benchmarks.results import FLOOR, US, Cell, cells, read

#: Distinct for readers who do not tell red from green: Okabe and Ito's colours.
COLOURS = dict(zip(PEERS, ("#000000", "#999999", "#D55E00", "#CC79A7", "#0072B2", "#E69F00", "#009E73", "#56B4E9",
                           "#B0A000"), strict=True))  # fmt: skip


def draw(measured: list[Cell], title: str, ratios: bool) -> Any:
    """Return a figure: a row a type, a column a network."""
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(cell.network for cell in measured))
    dtypes = list(dict.fromkeys(cell.dtype for cell in measured))
    figure = Figure(figsize=(3.2 * max(2, len(networks)), 2.9 * len(dtypes) + 0.9), layout="constrained")
    axes = figure.subplots(len(dtypes), len(networks), squeeze=False, sharex=True)
    for line, dtype in zip(axes, dtypes, strict=True):
        for ax, network in zip(line, networks, strict=True):
            here = sorted((c for c in measured if (c.network, c.dtype) == (network, dtype)), key=lambda c: c.rows)
            (_ratios if ratios else _times)(ax, here)
            ax.set_xscale("log", base=16)
            ax.xaxis.set_major_formatter("{x:,.0f}")
            ax.tick_params("x", labelsize=7)
            ax.set_title(f"{network} {dtype}", fontsize=9)
            ax.grid(alpha=0.3)
        line[0].set_ylabel("best peer's time / ours" if ratios else "µs a row")
    for ax in axes[-1]:
        ax.set_xlabel("batch size N")
    drawn: dict[str, Any] = {}
    for ax in axes.flat:
        drawn |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.suptitle(title)
    columns = max(1, int(figure.get_size_inches()[0] / 1.5))
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=columns, fontsize=8)
    return figure


def _times(ax: Any, here: list[Cell]) -> None:
    ax.set_yscale("log")
    for peer in PEERS:
        points = [(cell.rows, *(part / cell.rows for part in cell.time(peer))) for cell in here if peer in cell.rounds]
        if points:
            rows, low, middle, high = zip(*points, strict=True)
            style = {US: {"linewidth": 2.2}, FLOOR: {"linestyle": ":"}}.get(peer, {"linewidth": 1.1})
            ax.plot(rows, middle, color=COLOURS[peer], label=PEERS[peer].label, marker=".", markersize=4, **style)
            ax.fill_between(rows, low, high, color=COLOURS[peer], alpha=0.15, linewidth=0)


def _ratios(ax: Any, here: list[Cell]) -> None:
    points = [(cell.rows, *best) for cell in here if (best := cell.best()) is not None]
    ax.axhline(1, color="black", linewidth=0.8)
    if not points:
        return
    ax.fill_between([p[0] for p in points], [p[2].low for p in points], [p[2].high for p in points], color="#BBBBBB",
                    alpha=0.5, linewidth=0)  # fmt: skip
    ax.plot([p[0] for p in points], [p[2].median for p in points], color="black", linewidth=1)
    for peer in PEERS:
        own = [(rows, ratio.median) for rows, name, ratio in points if name == peer]
        if own:
            ax.plot(*zip(*own, strict=True), "o", color=COLOURS[peer], markersize=5, label=PEERS[peer].label)
    ax.set_ylim(bottom=0)


def main() -> None:
    """Write the figures beside the results, or where it is said."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/results/sweep.json.gz"))
    parser.add_argument("--output", type=Path, help="a directory (default: that of the results)")
    parser.add_argument("--formats", nargs="+", default=["png", "svg"])
    args = parser.parse_args()
    for path in write_figures(cells(read(args.results)), args.output or args.results.parent, args.formats):
        print(path)


def write_figures(measured: list[Cell], directory: Path, formats: list[str], dpi: int = 110) -> list[Path]:
    """Draw all figures and return their files."""
    import matplotlib as mpl

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for task, cores in dict.fromkeys((cell.task, cell.cores) for cell in measured):
        here = [cell for cell in measured if (cell.task, cell.cores) == (task, cores)]
        title = f"{task}, {on(cores)}"
        for kind in ("time", "ratio"):
            with mpl.rc_context({"svg.hashsalt": "matbackprop"}):
                figure = draw(here, title, kind == "ratio")
                for form in formats:
                    path = directory / f"{kind}-{task}-{cores}.{form}"
                    figure.savefig(path, dpi=dpi, metadata={"Date": None} if form == "svg" else None)
                    written.append(path)
    return written


if __name__ == "__main__":
    main()
