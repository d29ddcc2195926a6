"""Line charts as SVG, several in one picture."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple, TypeAlias

Points: TypeAlias = Sequence[tuple[float, float]]

COLUMNS, WIDTH, HEIGHT = 2, 460, 210
"""Panels in a row, and the size of a panel."""
LEFT, RIGHT, TOP, BOTTOM = 54, 26, 44, 30
"""Space around the lines of a panel."""
TICKS = 4
"""About how many intervals an axis has."""
COLOURS = ("#1f6feb", "#d1570a", "#1a7f37", "#8250df", "#6e7781")
STYLE = (
    "text{font:11px sans-serif;fill:#57606a}.title{font-weight:bold;font-size:13px;fill:#1f2328}"
    ".grid{stroke:#d8dee4;stroke-width:1}.line{fill:none;stroke-width:1.5;stroke-linejoin:round}"
)


class Panel(NamedTuple):
    """A chart with lines over the same minutes. The vertical axis begins at zero."""

    title: str
    """With the unit."""
    lines: Mapping[str, Points]
    """Minutes and values, by the name of the line."""


def draw(panels: Sequence[Panel]) -> str:
    """Return a picture of the panels."""
    width, height = COLUMNS * WIDTH, ceil(len(panels) / COLUMNS) * HEIGHT
    drawn = [
        f'<g transform="translate({number % COLUMNS * WIDTH} {number // COLUMNS * HEIGHT})">{_panel(panel)}</g>'
        for number, panel in enumerate(panels)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    back = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", back, *drawn, "</svg>"]) + "\n"


def _panel(panel: Panel) -> str:
    points = [point for line in panel.lines.values() for point in line]
    right, top = max(x for x, _ in points), max(y for _, y in points)
    x_step, y_step = _step(right), _step(top)
    top = y_step * max(ceil(top / y_step), 1)

    def x(value: float) -> str:
        return f"{LEFT + value / right * (WIDTH - LEFT - RIGHT):.1f}"

    def y(value: float) -> str:
        return f"{HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [f'<text class="title" x="{LEFT}" y="16">{escape(panel.title)}</text>']
    for number in range(round(top / y_step) + 1):
        value = number * y_step
        parts.append(f'<path class="grid" d="M{LEFT} {y(value)}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value)}" dy="4" text-anchor="end">{value:,.10g}</text>')
    for number in range(floor(right / x_step) + 1):
        value = number * x_step
        parts.append(f'<text x="{x(value)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g} min</text>')
    legend = LEFT
    for colour, (name, line) in zip(COLOURS, panel.lines.items(), strict=False):
        path = "L".join(f"{x(minutes)} {y(value)}" for minutes, value in line)
        parts.append(f'<path class="line" stroke="{colour}" d="M{path}"/>')
        parts.append(f'<rect x="{legend}" y="27" width="10" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{legend + 14}" y="32">{escape(name)}</text>')
        legend += 26 + 6 * len(name)
    return "".join(parts)


def _step(top: float) -> float:
    """Return a round interval that divides an axis into about `TICKS` parts."""
    rough = (top or 1) / TICKS
    unit = 10 ** floor(log10(rough))
    return next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
