"""The table that a sweep prints as it goes, and its last lines."""

from __future__ import annotations

from typing import Any

from benchmarks.results import FLOOR, US, Cell, Summary


def heading(peers: list[str]) -> str:
    """Return the table's head."""
    others = " ".join(f"{peer[:8]:>8}" for peer in peers if peer not in (US, FLOOR))
    floor = f" {'floor':>6}" if FLOOR in peers else ""
    return (
        "ours in µs; then each peer's time over ours: above 1 we are faster, and ~ where the middle half of the rounds "
        f"has both{'; our time over the floor' if floor else ''}\n"
        f"{'cell':>9} {'network':<22} {'type':<4} {'cores':>5} {'task':<8} {'N':>6} "
        f"{'ours µs':>10} {'µs a row':>9} {others}{floor} {'rounds':>6}"
    )


def row(record: dict[str, Any], peers: list[str], number: int, total: int) -> str:
    """Return a line of the table."""
    cell = Cell(record)
    ratios = [_ratio(cell, peer) if peer in cell.rounds else f"{'-':>8}" for peer in peers if peer not in (US, FLOOR)]
    floor = cell.floor()
    over_floor = f" {f'{floor.median:.2f}' if floor else '-':>6}" if FLOOR in peers else ""
    median = cell.time(US).median
    return (
        f"{number:>4}/{total:<4} {cell.network:<22} {'f' + cell.dtype[5:]:<4} "
        f"{cell.cores:>5} {cell.task:<8} {cell.rows:>6} "
        f"{median:>10.1f} {median / cell.rows:>9.3g} {' '.join(ratios)}{over_floor} {len(cell.rounds[US]):>6}"
    )


def _ratio(cell: Cell, peer: str) -> str:
    ratio = cell.ratio(peer)
    return f"{ratio.median:>7.2f}{'~' if ratio.low < 1 < ratio.high else ' '}"


def closing(summary: Summary) -> str:
    """Return the summary in words."""
    if not summary.compared:
        return "\nNo peer took part."
    lines = [f"\nNo peer faster in {summary.ahead} of {summary.compared} cells."]
    for peer, (count, mean, least, behind) in summary.means.items():
        lines.append(
            f"{peer:>14}: geometric mean {mean:5.2f} over {count} cells, least {least:.2f}, faster than us in {behind}"
        )
    for longer, goal, count, reached in summary.floors:
        if count:
            lines.append(f"floor over {longer * 1e6:.0f} µs: {reached} of {count} cells within {goal:.2f} times of it")
    return "\n".join(lines)
