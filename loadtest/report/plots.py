"""Draws plots as SVG elements: lines over time and distributions. Colours are classes of `style.py`."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, TypeAlias

WIDTH: Final = 560
HEIGHT: Final = 230
LEFT: Final = 62
RIGHT: Final = 14
TOP: Final = 12
BOTTOM: Final = 30
MOST_POINTS: Final = 240
SERIES: Final = 8

Words: TypeAlias = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """A line of points (x, y); a y of None is a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]
    style: str


@dataclass(frozen=True)
class Axis:
    """A range of values on a range of pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, here = self.low, self.high, value
        if self.log:
            low, high, here = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        share = (here - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        if self.log:
            return list(_decades(self.low, self.high))
        step = round_up((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, int(self.high / step + 1e-9) + 1)]


def round_up(step: float) -> float:
    """Returns the least of 1, 2, 5, 10, … that is not smaller."""
    if step <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(step))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= step * 0.999), 10 * power)


def _decades(low: float, high: float) -> Iterator[float]:
    few = math.log10(high / low) < 2
    for exponent in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for factor in (1, 2, 5) if few else (1,):
            value = factor * 10.0**exponent
            if low * 0.999 <= value <= high * 1.001:
                yield value


def thinned(
    points: Sequence[tuple[float, float | None]], pick: Callable[[Sequence[float]], float]
) -> list[tuple[float, float | None]]:
    """Reduces a series to at most `MOST_POINTS` points; `pick` chooses one of each group."""
    group = math.ceil(len(points) / MOST_POINTS) or 1
    kept: list[tuple[float, float | None]] = []
    for start in range(0, len(points), group):
        some = points[start : start + group]
        values = [y for _, y in some if y is not None]
        kept.append((some[0][0], pick(values) if values else None))
    return kept


def lines(
    series: Sequence[Series],
    words: Words,
    *,
    until: float,
    log: bool = False,
    band: tuple[float, float] | None = None,
) -> str:
    """Draws values over time, from 0 to `until` seconds. `band` is a part of the time that is shaded (the ramp)."""
    values = [y for one in series for _, y in one.points if y is not None and (y > 0 or not log)]
    if not values:
        return _nothing()
    x = Axis(0, max(until, 1), LEFT, WIDTH - RIGHT)
    y = _vertical(values, log=log)
    parts = [_band(x, band) if band else "", _grid(x, y, words, lambda at: f"{at:g} s")]
    for one in series:
        parts += [f'<path class="line {one.style}" d="{path}"/>' for path in _paths(one, x, y, log=log)]
    parts.append(_hints(series, x, words))
    return _svg("".join(parts))


def _vertical(values: Sequence[float], *, log: bool) -> Axis:
    top, bottom = HEIGHT - BOTTOM, TOP
    if not log:
        highest = max(values) or 1.0
        step = round_up(highest / 4)
        return Axis(0, math.ceil(highest / step - 1e-9) * step, top, bottom)
    low = min(values) * 0.8
    return Axis(low, max(max(values) * 1.25, low * 10), top, bottom, log=True)


def _paths(series: Series, x: Axis, y: Axis, *, log: bool) -> Iterator[str]:
    """Yields a path for each stretch without a gap; a single point becomes a short line."""
    stretch: list[str] = []
    for at, value in (*series.points, (0.0, None)):
        if value is not None and (value > 0 or not log):
            stretch.append(f"{x.at(at)},{y.at(value)}")
        elif stretch:
            yield f"M{'L'.join(stretch if len(stretch) > 1 else stretch * 2)}"
            stretch = []


def _hints(series: Sequence[Series], x: Axis, words: Words) -> str:
    """Returns the texts that the pointer shows: all values of one time."""
    moments = [at for at, _ in series[0].points]
    width = round((x.end - x.start) / max(len(moments), 1) + 1, 1)
    values = [dict(one.points) for one in series]
    parts = []
    for at in moments:
        said = [
            f"{one.name}: {words(value)}"
            for one, known in zip(series, values, strict=True)
            if (value := known.get(at)) is not None
        ]
        text = escape("\n".join([f"{at:g} s", *said]))
        place = f'x="{x.at(at) - width / 2:.1f}" y="{TOP}" width="{width}" height="{HEIGHT - TOP - BOTTOM}"'
        parts.append(f'<rect class="hint" {place}><title>{text}</title></rect>')
    return "".join(parts)


def distribution(
    series: Sequence[tuple[str, str, Sequence[tuple[float, int]]]], words: Words, marks: Sequence[tuple[str, float]]
) -> str:
    """Draws fractions of durations on a logarithmic axis. `series` are name, style and (longest duration, count)."""
    bins = [(name, style, _bins(steps)) for name, style, steps in series if steps]
    if not bins:
        return _nothing()
    edges = [edge for _, _, shares in bins for edge in shares]
    x = Axis(10 ** (min(edges) / 12), 10 ** ((max(edges) + 1) / 12), LEFT, WIDTH - RIGHT, log=True)
    y = _vertical([share for _, _, shares in bins for share in shares.values()], log=False)
    parts = [_grid(x, y, lambda share: f"{share * 100:g} %", words)]
    for name, style, shares in bins:
        for edge, share in sorted(shares.items()):
            left, right, top = x.at(10 ** (edge / 12)), x.at(10 ** ((edge + 1) / 12)), y.at(share)
            hint = f"{name}: {share * 100:.2g} % took {words(10 ** (edge / 12))} to {words(10 ** ((edge + 1) / 12))}"
            place = f'x="{left}" y="{top}" width="{right - left - 0.6:.1f}" height="{HEIGHT - BOTTOM - top:.1f}"'
            parts.append(f'<rect class="bar {style}" {place}><title>{escape(hint)}</title></rect>')
    for name, value in marks:
        at = x.at(value)
        parts.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{at + 3}" y="{TOP + 9}">{escape(name)}</text>')
    return _svg("".join(parts))


def _bins(steps: Sequence[tuple[float, int]]) -> dict[int, float]:
    """Returns the bins, twelve for each power of ten, as fractions of all durations."""
    whole = sum(count for _, count in steps)
    shares: dict[int, float] = {}
    for duration, count in steps:
        edge = math.floor(math.log10(max(duration, 1e-6)) * 12)
        shares[edge] = shares.get(edge, 0.0) + count / whole
    return shares


def _band(x: Axis, band: tuple[float, float]) -> str:
    left, right = x.at(band[0]), x.at(min(band[1], x.high))
    if right - left < 1:
        return ""
    place = f'x="{left}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}"'
    return f'<rect class="band" {place}/><text class="tick" x="{left + 4}" y="{TOP + 11}">ramp</text>'


def _grid(x: Axis, y: Axis, up: Words, along: Words) -> str:
    parts = []
    for value in y.ticks():
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{at + 3.5}">{escape(up(value))}</text>')
    for value in x.ticks():
        at = x.at(value)
        parts.append(f'<text class="tick middle" x="{at}" y="{HEIGHT - BOTTOM + 16}">{escape(along(value))}</text>')
    base = HEIGHT - BOTTOM
    return "".join(parts) + f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>'


def _svg(inside: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{inside}</svg>'


def _nothing() -> str:
    return _svg(f'<text class="tick middle" x="{WIDTH / 2}" y="{HEIGHT / 2}">nothing was measured</text>')
