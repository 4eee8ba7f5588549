"""The plots of an evaluation, drawn as SVG that stands by itself in a page.

Colours come from the page by class (``dense``, ``bm25``, ``fused``, ``reranked``), so a plot is
light or dark with it; each mode has a shape of its own too. Every text is escaped, every plot says
in words what it shows. No script, no font, nothing from elsewhere.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from client.evaluating.figures import Difference, ModeFigures, Times

WIDTH: Final = 720
_LINE: Final = 18
# Rough width of a character at the plots' size of text; labels only need to keep apart.
_CHARACTER: Final = 7.5
# Of the axis of quality, which is 1 long; and how many of them at most.
_STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2)
_MOST_STEPS: Final = 6
# Of the axis of time: multiples of a power of ten, the finer ones where few others fit.
_FACTORS: Final = ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
_LEAST_TICKS: Final = 3
_KINDS: Final = {"lexical": "bm25"}
# Unit shapes around the origin, 2 wide.
_SHAPES: Final = {
    "dense": "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0Z",
    "bm25": "M-.9 -.9H.9V.9H-.9Z",
    "fused": "M0 -1.25L1.25 0L0 1.25L-1.25 0Z",
    "reranked": "M0 -1.2L1.15 .85H-1.15Z",
}


def kind(mode: str) -> str:
    """The class that colours a mode."""
    return _KINDS.get(mode, mode)


def marker(mode: str, x: float = 0, y: float = 0, size: float = 6) -> str:
    """The shape of a mode around a point."""
    return (
        f'<path class="mark {kind(mode)}" transform="translate({x:.1f} {y:.1f}) scale({size:g})"'
        f' d="{_SHAPES[kind(mode)]}"/>'
    )


def quality_by_time(modes: Mapping[str, ModeFigures]) -> str:
    """nDCG@10 with its interval against the time of a call, p50 to p99; one point a mode."""
    left, right, top, bottom, height = 52, 20, 32, 46, 340
    qualities = {mode: figures.measures["ndcg@10"] for mode, figures in modes.items()}
    ticks = _ticks(min(q.low for q in qualities.values()), max(q.high for q in qualities.values()))
    fastest = min(figures.call.p50 for figures in modes.values())
    slowest = max(max(figures.call.p99 for figures in modes.values()) * 1.15, fastest * 2)
    # The labels stand left of the points.
    room = (max(map(len, modes)) * _CHARACTER + 24) / (WIDTH - left - right)
    first = math.exp((math.log(fastest) - room * math.log(slowest)) / (1 - room))
    x = _scale(math.log(first), math.log(slowest), left, WIDTH - right)
    y = _scale(ticks[0], ticks[-1], height - bottom, top)
    drawn = [_text(left - 36, 14, "nDCG@10", "start")]
    for tick in ticks:
        drawn.append(_line(left, y(tick), WIDTH - right, y(tick), "grid"))
        drawn.append(_text(left - 8, y(tick) + 4, f"{tick:.2f}", "end"))
    for tick in _log_ticks(first, slowest):
        at = x(math.log(tick))
        drawn.append(_line(at, height - bottom, at, height - bottom + 5, "axis"))
        drawn.append(_text(at, height - bottom + 20, f"{tick:g}", "middle"))
    drawn.append(_line(left, height - bottom, WIDTH - right, height - bottom, "axis"))
    drawn.append(
        _text(WIDTH - right, height - 6, "milliseconds of a call, p50 to p99 (log)", "end")
    )
    points = {
        mode: (x(math.log(figures.call.p50)), y(qualities[mode].mean))
        for mode, figures in modes.items()
    }
    for mode, figures in modes.items():
        (at, level), tail = points[mode], x(math.log(figures.call.p99))
        low, high = y(qualities[mode].low), y(qualities[mode].high)
        drawn += [
            _line(at, low, at, high, f"bar {kind(mode)}"),
            _line(at - 5, low, at + 5, low, f"bar {kind(mode)}"),
            _line(at - 5, high, at + 5, high, f"bar {kind(mode)}"),
            _line(at, level, tail, level, f"bar {kind(mode)}"),
            _line(tail, level - 5, tail, level + 5, f"bar {kind(mode)}"),
            marker(mode, at, level),
        ]
    for mode, (at, level) in _apart(points).items():
        drawn.append(_text(at - 12, level + 4, mode, "end", "name"))
    said = "; ".join(
        f"{mode}: nDCG@10 {mean:.3f} ({low:.3f} to {high:.3f}), p50 {modes[mode].call.p50:.1f} ms,"
        f" p99 {modes[mode].call.p99:.1f} ms"
        for mode, (mean, low, high) in qualities.items()
    )
    return _svg(drawn, height, f"Quality against time. {said}.")


def stage_bars(modes: Mapping[str, ModeFigures], stages: Sequence[str]) -> str:
    """Bars of the milliseconds of each stage: p50 filled, a line on to p99."""
    left, right, bar, gap = 110, 120, 13, 12
    groups = [(stage, _of_stage(modes, stage)) for stage in stages]
    groups.append(("whole call", {mode: figures.call for mode, figures in modes.items()}))
    longest = max(times.p99 for _, rows in groups for times in rows.values()) or 1.0
    x = _scale(0, longest, left, WIDTH - right)
    drawn, y = [], 4.0
    for name, rows in groups:
        middle = y + len(rows) * bar / 2 + 4
        drawn.append(_text(left - 12, middle, name, "end"))
        for mode, times in rows.items():
            centre = y + bar / 2
            end = x(times.p99)
            drawn += [
                _bar(left, y + 1, x(times.p50) - left, bar - 2, mode),
                _line(x(times.p50), centre, end, centre, f"bar {kind(mode)}"),
                _line(end, centre - 4, end, centre + 4, f"bar {kind(mode)}"),
                _text(end + 8, centre + 4, f"{times.p50:.2f} / {times.p99:.2f}", "start", "small"),
            ]
            y += bar
        y += gap
    drawn.append(_line(left, 0, left, y - gap + 4, "axis"))
    return _svg(drawn, y, "Milliseconds of each stage by mode, p50 and p99; the table has them.")


def sorted_differences(gap: Difference, mode: str) -> str:
    """What each query's nDCG@10 gains with a mode, from the greatest gain to the greatest loss."""
    left, right, top, height = 52, 20, 24, 230
    ordered = sorted(gap.by_query, reverse=True)
    most = max(map(abs, ordered))
    bound = next((step for step in (0.1, 0.25, 0.5, 1.0) if step >= most), 1.0)
    x = _scale(0, len(ordered), left, WIDTH - right)
    y = _scale(-bound, bound, height - top, top)
    drawn = []
    for tick in (-bound, -bound / 2, bound / 2, bound):
        drawn.append(_line(left, y(tick), WIDTH - right, y(tick), "grid"))
        drawn.append(_text(left - 8, y(tick) + 4, f"{tick:+g}", "end"))
    gains, losses = [max(d, 0.0) for d in ordered], [min(d, 0.0) for d in ordered]
    for winner, part in ((mode, gains), (gap.to, losses)):
        if any(part):
            drawn.append(f'<path class="fill {kind(winner)}" d="{_steps(part, x, y)}"/>')
    drawn.append(_line(left, y(0), WIDTH - right, y(0), "axis"))
    drawn.append(_text(left - 8, y(0) + 4, "0", "end"))
    end = WIDTH - right - 4
    drawn.append(_text(left + 4, 14, f"{gap.better} better with {mode}", "start", "name"))
    drawn.append(_text(end, height - 6, f"{gap.worse} better with {gap.to}", "end", "name"))
    said = f"{gap.better} of {len(ordered)} queries gain, {gap.worse} lose"
    return _svg(drawn, height, f"Differences in nDCG@10 of {mode} to {gap.to}, sorted: {said}.")


def _of_stage(modes: Mapping[str, ModeFigures], stage: str) -> dict[str, Times]:
    return {mode: f.stages[stage] for mode, f in modes.items() if stage in f.stages}


def _steps(
    values: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    """The area between the values, as steps, and zero."""
    path = [f"M{x(0):.2f} {y(0):.2f}"]
    path += [f"V{y(value):.2f}H{x(index + 1):.2f}" for index, value in enumerate(values)]
    return "".join([*path, f"V{y(0):.2f}Z"])


def _apart(points: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Where labels go: at their points, pushed down where they would cover another."""
    placed: dict[str, tuple[float, float]] = {}
    for mode, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        level = y
        for other, (taken_x, taken_y) in placed.items():
            near = abs(x - taken_x) < max(len(mode), len(other)) * _CHARACTER + 16
            if near and level < taken_y + _LINE:
                level = taken_y + _LINE
        placed[mode] = (x, level)
    return placed


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within 0 to 1 that span the values."""
    span = max(high - low, _STEPS[0] * 2)
    step = next(step for step in _STEPS if span / step <= _MOST_STEPS)
    first = max(0, math.floor(low / step))
    last = min(max(math.ceil(high / step), first + 1), round(1 / step))
    return [tick * step for tick in range(min(first, last - 1), last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the bounds, at least a few if there are."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors in _FACTORS:
        found = [tick for p in powers for f in factors if low <= (tick := f * 10.0**p) <= high]
        if len(found) >= _LEAST_TICKS:
            break
    return found


def _bar(x: float, y: float, width: float, height: float, mode: str) -> str:
    size = f'width="{max(width, 1):.1f}" height="{height:.1f}"'
    return f'<rect class="fill {kind(mode)}" x="{x:.1f}" y="{y:.1f}" {size}/>'


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="{classes}" {ends}/>'


def _text(x: float, y: float, text: str, anchor: str, classes: str = "") -> str:
    named = f' class="{classes}"' if classes else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _svg(drawn: Iterable[str], height: float, said: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(said)}">'
        f"{''.join(drawn)}</svg>"
    )
