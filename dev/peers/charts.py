"""Bars with their axes as SVG, readable on light and on dark pages."""

import math
from html import escape

LABELS, BARS, RIGHT, BAR, GAP = 250, 430, 90, 20, 8
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 17px; font-weight: 600 } .panel { font-weight: 600 }
  .own { fill: #0969da } .other { fill: #8c959f }
  .grid { stroke: #d0d7de } .axis { stroke: #57606a } .range { stroke: #1f2328 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .own { fill: #4493f8 } .other { fill: #6e7681 }
    .grid { stroke: #30363d } .axis { stroke: #8b949e } .range { stroke: #e6edf3 }
  }
"""


def shown(value):
    """Three digits that count, and thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def ticks(most):
    """Some five round numbers from 0 on that reach as far as the longest bar."""
    rough = most / 4 or 1
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * by for by in (1, 2, 2.5, 5, 10) if power * by >= rough)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def panel(top, title, unit, bars):
    """Bars are (label, median, least, most, whether it is ours). Returns lines of SVG and where they end."""
    marks = ticks(max(most for _, _, _, most, _ in bars))
    scale = BARS / marks[-1]
    bottom = top + 14 + len(bars) * (BAR + GAP)
    out = [f'<text class="panel" x="0" y="{top}">{escape(title)}</text>']
    for mark in marks:
        x = LABELS + mark * scale
        out.append(f'<line class="grid" x1="{x:.1f}" y1="{top + 10}" x2="{x:.1f}" y2="{bottom}"/>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{shown(mark)}</text>')
    out.append(f'<line class="axis" x1="{LABELS}" y1="{bottom}" x2="{LABELS + BARS}" y2="{bottom}"/>')
    out.append(f'<text x="{LABELS + BARS / 2}" y="{bottom + 36}" text-anchor="middle">{escape(unit)}</text>')
    for number, (label, median, least, most, own) in enumerate(bars):
        y = top + 14 + number * (BAR + GAP)
        middle = y + BAR / 2
        out.append(f'<text x="{LABELS - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>')
        kind = "own" if own else "other"
        out.append(f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{median * scale:.1f}" height="{BAR}"/>')
        if most > least:
            left, right = LABELS + least * scale, LABELS + most * scale
            out.append(f'<path class="range" d="M{left:.1f} {middle}H{right:.1f}M{left:.1f} {middle - 4}v8M{right:.1f} {middle - 4}v8"/>')
        out.append(f'<text x="{LABELS + max(median, most) * scale + 6:.1f}" y="{y + 15}">{shown(median)}</text>')
    return out, bottom + 66


def svg(title, panels):
    lines, top = [f'<text class="title" x="0" y="20">{escape(title)}</text>'], 52
    for one in panels:
        more, top = panel(top, *one)
        lines += more
    width, height = LABELS + BARS + RIGHT, top - 22
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {width + 8} {height}" width="{width + 8}" height="{height}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *lines, "</svg>"]) + "\n"
