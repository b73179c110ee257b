"""Loss curves: a few lines of text for the terminal, an SVG for the artifact."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]  # (step, loss)
BLOCKS = " ▁▂▃▄▅▆▇█"


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points: means of equal stretches, so that noise does not hide the trend."""
    clean = [(x, y) for x, y in points if math.isfinite(y)]
    if len(clean) <= most:
        return clean
    edges = [round(i * len(clean) / most) for i in range(most + 1)]
    parts = [clean[a:b] for a, b in zip(edges, edges[1:])]
    return [(p[-1][0], sum(y for _, y in p) / len(p)) for p in parts]


def text_curve(points: Sequence[Point], *, width: int = 64, height: int = 8) -> str:
    """The curve as columns of block characters, highest and lowest value at the left."""
    points = thin(points, width)
    if not points:
        return "no losses to draw"
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0
    levels = [round((y - low) / span * (height * 8 - 1)) + 1 for _, y in points]
    lines = []
    for row in range(height - 1, -1, -1):
        cells = "".join(BLOCKS[min(8, max(0, level - 8 * row))] for level in levels)
        label = f"{high:.3f}" if row == height - 1 else f"{low:.3f}" if row == 0 else ""
        lines.append(f"{label:>8} ┤{cells.rstrip()}")
    first, last = f"{points[0][0]:,.0f}", f"{points[-1][0]:,.0f} steps"
    lines.append(f"{'':>8} └{'─' * len(points)}")
    lines.append(f"{'':>10}{first}{last:>{max(1, len(points) - len(first))}}")
    return "\n".join(lines)


def svg_curve(
    series: dict[str, Sequence[Point]], *, title: str, width: int = 720, height: int = 360
) -> str:
    """Named curves over the same axes as one self-contained SVG (text, axes, legend)."""
    shown = {name: thin(points, 400) for name, points in series.items()}
    shown = {name: points for name, points in shown.items() if points}
    every = [p for points in shown.values() for p in points] or [(0.0, 0.0)]
    x_high = max(x for x, _ in every) or 1.0
    y_low, y_high = min(y for _, y in every), max(y for _, y in every)
    y_step = _nice((y_high - y_low) / 5 or 1.0)
    y_low, y_high = math.floor(y_low / y_step) * y_step, math.ceil(y_high / y_step) * y_step
    y_high = y_high if y_high > y_low else y_low + y_step
    left, right, top, bottom = 60, width - 20, 40, height - 40

    def place(point: Point) -> str:
        x = left + point[0] / x_high * (right - left)
        y = bottom - (point[1] - y_low) / (y_high - y_low) * (bottom - top)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="24" font-size="15">{_escape(title)}</text>',
    ]
    for i in range(round((y_high - y_low) / y_step) + 1):
        value = y_low + i * y_step
        y = float(place((0, value)).split(",")[1])
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{value:.4g}</text>')
    x_step = _nice(x_high / 6)
    for i in range(int(x_high / x_step) + 1):
        x = float(place((i * x_step, y_low)).split(",")[0])
        label = f"{i * x_step:,.0f}"
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{right}" y="{height - 6}" text-anchor="end">step</text>')
    colours = ["#1f6feb", "#d1242f", "#2da44e", "#8250df"]
    for i, (name, points) in enumerate(shown.items()):
        colour = colours[i % len(colours)]
        line = " ".join(place(p) for p in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        )
        parts.append(
            f'<text x="{right}" y="{top + 16 * i}" text-anchor="end" fill="{colour}">'
            f"{_escape(name)}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _nice(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * 0.999)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
