"""Charts as inline SVG. Colours come from the page's CSS classes, so both themes work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 860
_ROW = 26
_BAR = 16
_LABEL = 236
_LABEL_CHARS = 32
_VALUE = 76
_LANE = 54


@dataclass(frozen=True, slots=True)
class Part:
    """One coloured piece of a bar; `style` is a CSS class, `tip` shows on hover."""

    value: float
    style: str
    tip: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: a name, its pieces, and the number to print at the end."""

    label: str
    parts: Sequence[Part]
    value: str


def shorten(text: str, limit: int) -> str:
    """Cut in the middle: a path's end and a node's beginning both say which one it is."""
    head = limit // 3
    return text if len(text) <= limit else f"{text[:head]}…{text[head + 1 - limit :]}"


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars on one scale."""
    top = max((sum(part.value for part in row.parts) for row in rows), default=0.0) or 1.0
    scale = (WIDTH - _LABEL - _VALUE) / top
    body = "".join(_bar(row, index * _ROW, scale) for index, row in enumerate(rows))
    return _svg(title, len(rows) * _ROW, body)


def _bar(row: Bar, y: int, scale: float) -> str:
    """One row of `bars`. Pieces are parted by two units of background."""
    x = float(_LABEL)
    middle = y + _ROW / 2
    tip = f"<title>{escape(row.label)}</title>"
    label = escape(shorten(row.label, _LABEL_CHARS))
    out = f'<text class="label" x="{_LABEL - 10}" y="{middle}">{tip}{label}</text>'
    for part in row.parts:
        width = part.value * scale
        if width > 0:
            out += (
                f'<rect class="{part.style}" x="{x:.1f}" y="{y + (_ROW - _BAR) / 2}" rx="2"'
                f' width="{max(width - 2, 1):.1f}" height="{_BAR}">'
                f"<title>{escape(part.tip)}</title></rect>"
            )
        x += width
    return f'{out}<text class="value" x="{x + 6:.1f}" y="{middle}">{escape(row.value)}</text>'


@dataclass(frozen=True, slots=True)
class Lane:
    """One strip of `lanes`: a name and a value per bucket."""

    label: str
    values: Sequence[float]


def lanes(title: str, rows: Sequence[Lane], seconds: float) -> str:
    """Strips over a common time axis, each filled to its value on one scale."""
    top = math.ceil(max((value for row in rows for value in row.values), default=0.0)) or 1
    body = _time_axis(len(rows) * _LANE, seconds)
    body += "".join(_lane(row, index * _LANE, top) for index, row in enumerate(rows))
    return _svg(title, len(rows) * _LANE + 24, body)


def _lane(row: Lane, y: int, top: int) -> str:
    """One strip: a filled step line, its base line, and its scale."""
    base, height = y + _LANE - 4, _LANE - 14
    step = (WIDTH - _LABEL) / max(len(row.values), 1)
    path = f"M{_LABEL} {base}"
    for index, value in enumerate(row.values):
        level = base - height * value / top
        path += f"L{_LABEL + index * step:.1f} {level:.1f}H{_LABEL + (index + 1) * step:.1f}"
    mean = sum(row.values) / max(len(row.values), 1)
    return (
        f'<text class="label" x="{_LABEL - 10}" y="{base - height / 2 - 8}">'
        f"{escape(shorten(row.label, _LABEL_CHARS))}</text>"
        f'<text class="label faint" x="{_LABEL - 10}" y="{base - height / 2 + 8}">'
        f"{mean:.1f} of {top} busy on average</text>"
        f'<path class="area" d="{path}V{base}Z"><title>{escape(row.label)}</title></path>'
        f'<line class="axis" x1="{_LABEL}" x2="{WIDTH}" y1="{base}" y2="{base}"/>'
        f'<line class="grid" x1="{_LABEL}" x2="{WIDTH}" y1="{base - height}" y2="{base - height}"/>'
    )


def _time_axis(y: int, seconds: float) -> str:
    """Second marks under the lanes, at a round distance."""
    step = tick(seconds)
    scale = (WIDTH - _LABEL) / seconds if seconds > 0 else 0.0
    out = ""
    for index in range(int(seconds / step) + 1):
        x = _LABEL + index * step * scale
        if x <= WIDTH - 14:
            out += f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{y - 4}"/>'
            anchor = "start" if index == 0 else "mid"
            out += f'<text class="mark {anchor}" x="{x:.1f}" y="{y + 12}">{index * step:g} s</text>'
    return out


def tick(span: float) -> float:
    """The round distance (1, 2 or 5 × 10ⁿ) that cuts `span` into four to ten parts."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span))
    return next(power * part for part in (0.1, 0.2, 0.5, 1.0, 2.0) if span / (power * part) <= 10)


def _svg(title: str, height: float, body: str) -> str:
    """Wrap in an element that scales, and that a screen reader can name."""
    name = escape(title, quote=True)
    return (
        f'<svg role="img" aria-label="{name}" viewBox="0 0 {WIDTH} {height:g}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )
