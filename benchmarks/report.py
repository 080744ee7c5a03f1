"""Write the page on the last full run: `python -m benchmarks.report`, or `make bench-report`.

The page is Markdown for the documentation, with its figures beside it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import on
from benchmarks.peers import PEERS
from benchmarks.results import FLOOR, US, Cell, Spread, cells, geometric_mean, read, summarise


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a Markdown table, the first column to the left and the others to the right."""
    lines = ["| " + " | ".join(head) + " |", "|:--" + "|--:" * (len(head) - 1) + "|"]
    return [*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""]


def label(peer: str) -> str:
    """Return what a peer is called."""
    return PEERS[peer].label if peer in PEERS else peer


def name(cell: Cell) -> str:
    """Return what a cell is called."""
    return f"{cell.network} {cell.dtype}, {cell.task}, N = {cell.rows:,}, {on(cell.cores)}"


def between(ratio: Spread) -> str:
    """Return a ratio with the middle half of its rounds."""
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def machine(results: dict[str, Any]) -> list[str]:
    """Return the paragraphs on when and where."""
    about = results["machine"]
    caches = "; ".join(f"{kind} {size}" for kind, size in about["caches"].items())
    changed = " with uncommitted changes" if about["changed"] else ""
    cores = f"{len(about['cores'])} cores to use"
    memory, governor = about["memory GiB"], about["governor"] or "not readable"
    lines = [
        f"Measured on {about['date']}, at commit `{(about['commit'] or 'unknown')[:12]}`{changed}.",
        "",
        f"- Processor: {about['cpu']}, {cores}; {caches}; {memory} GiB of memory; frequency governor {governor}.",
        f"- System: {about['system']}, Python {about['python']}; load at the start {about['load at the start']}.",
    ]
    versions: dict[str, str] = {}
    for group in results["groups"]:
        for worker in group["workers"].values():
            versions |= worker["versions"]
    lines.append("- Versions: " + ", ".join(f"{package} {number}" for package, number in versions.items()) + ".")
    return [*lines, ""]


def overview(measured: list[Cell]) -> list[str]:
    """Return the summary over all cells and by task."""
    total = summarise(measured)
    share = total.ahead / total.compared if total.compared else float("nan")
    lines = [
        f"In **{total.ahead} of {total.compared} cells ({share:.0%})** no peer was faster.",
        "",
        "A peer ratio is the peer's median time over ours: above 1, we are faster.",
        "",
    ]
    lines += table(
        ["peer", "cells", "geometric mean", "least", "cells in which it is faster"],
        [
            [label(peer), n, f"{mean:.2f}", f"{least:.2f}", behind]
            for peer, (n, mean, least, behind) in total.means.items()
        ],
    )
    tasks = list(dict.fromkeys(cell.task for cell in measured))
    rows = []
    counts = ((task, summarise([cell for cell in measured if cell.task == task])) for task in tasks)
    by_task = ", ".join(f"{task} {summary.ahead} of {summary.compared}" for task, summary in counts)
    lines += [f"Cells in which no peer was faster: {by_task}.", ""]
    for peer in total.means:
        means = [
            geometric_mean(c.ratio(peer).median for c in measured if c.task == t and peer in c.peers) for t in tasks
        ]
        rows.append([label(peer), *("-" if mean != mean else f"{mean:.2f}" for mean in means)])  # noqa: PLR0124  (NaN)
    lines += ["The geometric means by task:", "", *table(["peer", *tasks], rows)]
    return lines


def floors(measured: list[Cell]) -> list[str]:
    """Return the section on the floor ratios."""
    lines = [
        "## The floor",
        "",
        "The floor is the step's matrix products alone, each as one np.dot over the whole batch, on the same BLAS.",
        "Ours are done in blocks and parts, and can be faster.",
        "",
    ]
    goals = summarise(measured).floors
    lines += table(
        ["floor longer than", "goal: ours at most", "cells", "within the goal"],
        [[f"{longer * 1e6:,.0f} µs", f"{goal:.2f} floors", count, reached] for longer, goal, count, reached in goals],
    )
    beyond = [c for c in measured if (goal := c.floor_goal()) and (f := c.floor()) and f.median > goal]
    if beyond:
        rows = [[name(c), f"{c.time(FLOOR).median:,.0f}", between(c.floor())] for c in beyond]  # type: ignore[arg-type]
        lines += ["Beyond the goal:", "", *table(["cell", "floor µs", "ours / floor"], rows)]
    return lines


def behind(measured: list[Cell]) -> list[str]:
    """Return the section that names every cell in which a peer is faster."""
    lines = ["## Where a peer is faster", ""]
    rows = [[name(c), label(peer), f"{c.time(US).median:,.1f}", between(ratio)]
            for c in measured for peer in c.peers if (ratio := c.ratio(peer)).median < 1]  # fmt: skip
    if not rows:
        return [*lines, "Nowhere in this run.", ""]
    note = (
        "The ratio is that of the medians; in brackets is the middle half of the ratios round by round. Where it holds "
        "1, or lies beyond it, the noise was larger than the difference."
    )
    return [*lines, note, "", *table(["cell", "faster peer", "ours µs", "its time / ours"], rows)]


def every_cell(measured: list[Cell]) -> list[str]:
    """Return the tables with all cells, one a task and number of cores."""
    lines = ["## All cells", "", "Our median time, and a row's; each peer's ratio; and our time over the floor's.", ""]
    for task, cores in dict.fromkeys((cell.task, cell.cores) for cell in measured):
        here = [cell for cell in measured if (cell.task, cell.cores) == (task, cores)]
        peers = [peer for peer in PEERS if any(peer in cell.peers for cell in here)]
        rows = []
        for c in sorted(here, key=lambda c: (c.network, c.dtype, c.rows)):
            ratios = [f"{c.ratio(peer).median:.2f}" if peer in c.peers else "-" for peer in peers]
            floor = c.floor()
            median = c.time(US).median
            rows.append([f"{c.network} {c.dtype}", f"{c.rows:,}", f"{median:,.1f}", f"{median / c.rows:,.3g}", *ratios,
                         f"{floor.median:.2f}" if floor else "-"])  # fmt: skip
        head = ["network", "N", "ours µs", "µs a row", *map(label, peers), "floor"]
        lines += [f"### {task}, {on(cores)}", "", *table(head, rows)]
    return lines


def absent(results: dict[str, Any]) -> list[str]:
    """Return the section on what was not measured and why."""
    rows = [[who, "everywhere", why] for who, why in results["left_out"].items()]
    rows += [["all", f"{d['case']}, {on(d['cores'])}", "no time left in the budget"] for d in results["dropped"]]
    reasons: dict[tuple[str, str], list[str]] = {}
    for record in results["cells"]:
        for peer, why in record["left_out"].items():
            case = f"{record['network']} {record['dtype']} N={record['rows']} {record['task']}"
            place = f"{case}, {on(record['cores'])}"
            reasons.setdefault((peer, "share" if "its share" in why else why), []).append(place)
    for (peer, why), places in reasons.items():
        said = "getting ready (compiling) had taken more than its share of the time" if why == "share" else why
        rows.append([label(peer), places[0] if len(places) == 1 else f"{len(places)} cells, first {places[0]}", said])
    lines = ["## Left out", ""]
    if not rows:
        return [*lines, "Nothing.", ""]
    return [*lines, *table(["who", "where", "why"], [[str(part).replace("|", "/") for part in row] for row in rows])]


HOW = """\
## How it was measured

`make bench` runs the sweep, `make bench-report` writes this page, and `python -m benchmarks.sweep --help`
tells what else can be asked. A step is the loss with the gradients of all parameters (*backprop*), the same
with an update by Adam (*train*), or the output alone (*predict*). Each peer does it in its customary fast
form, in a process of its own that is pinned to the same cores with as many threads, and starts from the same
parameters and data. In each cell it has to agree with values computed in float64 before it is timed. Then all
take turns in an order that rotates; a process that is not on turn is stopped, so that its threads cannot
disturb the others. A turn is a warm-up and two samples of at least 0.3 ms. Times are medians over the rounds.
"""


def page(results: dict[str, Any], figures: Sequence[str]) -> str:
    """Return the page."""
    measured = cells(results)
    lines = ["# The last full run", "", *machine(results), *overview(measured)]
    lines += [*behind(measured), *floors(measured)]
    if figures:
        lines += ["## Figures", ""]
        for figure in figures:
            lines += [f"![{Path(figure).stem.replace('-', ', ')} over the batch size]({figure})", ""]
    lines += [*every_cell(measured), *absent(results), *HOW.splitlines()]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write page and figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/results/sweep.json.gz"))
    parser.add_argument("--output", type=Path, default=Path("docs/benchmark.md"))
    parser.add_argument("--figures", type=Path, default=Path("docs/_static/benchmark"), help="a directory for them")
    parser.add_argument("--no-figures", action="store_true")
    args = parser.parse_args()
    results, figures = read(args.results), []
    if not args.no_figures:
        from benchmarks.plot import write_figures

        written = write_figures(cells(results), args.figures, ["png"], 72)
        start = args.output.resolve().parent
        figures = [Path(os.path.relpath(path.resolve(), start)).as_posix() for path in written]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(page(results, figures), "utf-8")
    print(args.output)


if __name__ == "__main__":
    main()
