"""The README's chart, docs/images/programs.svg, from the tables of docs/performance.md:

    python -m benchmarks.drawing.readme

Of real programs, as `python -m benchmarks --programs` prints them, where the page has these tables.
Until then: CPU time of servers, and requests per second of the two clients that were measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from ..contenders import BASELINE
from ..paths import ROOT

PAGE = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "images" / "programs.svg"
SHOWN = ("ctask", "uvloop", "rloop")  # from the top of a group
COLOURS = {"ctask": "#d1495b", "uvloop": "#4c78a8", "rloop": "#7fb3ab"}
SERVERS = {
    "TCP, Protocol, 1k, 100": "TCP, Protocol",
    "TCP, streams, read, 1k, 100": "TCP, streams",
    "TLS, Protocol, 1k, 100": "TLS, Protocol",
    "UDP, Protocol, 1k, 100": "UDP, Protocol",
    "TCP, Protocol, with connect, 1k, 100": "TCP, a connection each",
}
# The column of "One request at a time" whose figures can be compared on any machine.
SHARED = "one core for both"

WIDTH, LEFT, RIGHT = 760, 200, 36
BAR, GAP, TITLE = 13, 9, 42  # pixels: a bar, between two groups, a panel's title


@dataclass(frozen=True)
class Panel:
    title: str
    rows: dict[str, dict[str, float]]  # label -> contender -> times asyncio's


def tables(text: str) -> Iterator[list[list[str]]]:
    """The Markdown tables of a page, as lines of cells; the first is the head."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        yield [lines[0], *lines[2:]]


def table(text: str, head: str) -> list[list[str]]:
    """The table whose first cell begins like that; empty if there is none."""
    return next((lines for lines in tables(text) if lines[0][0].startswith(head)), [])


def shares(lines: list[list[str]]) -> dict[str, dict[str, float]]:
    """Ratios that stand in brackets behind the figures."""
    names = [name.split(",")[0] for name in lines[0][1:]]
    return {
        label: {
            name: float(found[1])
            for name, cell in zip(names, cells, strict=True)
            if name in SHOWN and (found := re.search(r"\(([\d.]+)\)", cell))
        }
        for label, *cells in lines[1:]
        if label != "geometric mean"
    }


def rates(lines: list[list[str]]) -> dict[str, dict[str, float]]:
    """Ratios of figures per second to asyncio's."""
    names = lines[0][1:]
    found = {}
    for label, *cells in lines[1:]:
        row = {
            name: float(cell.replace(",", ""))
            for name, cell in zip(names, cells, strict=True)
            if cell != "-"
        }
        found[label] = {name: row[name] / row[BASELINE] for name in SHOWN if name in row}
    return found


def clients(text: str) -> dict[str, dict[str, float]]:
    """Of "One request at a time": the clients on one core with what they talk to."""
    section = text.partition("### One request at a time\n")[2]
    head, *lines = next(tables(section))
    column = head.index(SHARED)
    found: dict[str, dict[str, float]] = {}
    for label, *cells in lines:
        program, _, contender = label.partition(", ")
        contender = contender.removesuffix(" installed")
        if contender in SHOWN:
            found.setdefault(program, {})[contender] = float(cells[column - 1])
    return found


def panels(text: str) -> list[Panel]:
    programs = table(text, "Program's CPU time per request")
    if programs:
        return [
            Panel("CPU time per request, asyncio = 1: less is better", shares(programs)),
            Panel(
                "Requests a second, asyncio = 1: more is better",
                rates(table(text, "Requests per second")),
            ),
        ]
    servers = shares(table(text, "Server's CPU time per request"))
    return [
        Panel(
            "A server's CPU time per request, asyncio = 1: less is better",
            {short: servers[label] for label, short in SERVERS.items()},
        ),
        Panel("A client's requests a second, asyncio = 1: more is better", clients(text)),
    ]


def text_at(x: float, y: float, text: str, **attributes: object) -> str:
    more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f'<text x="{x:g}" y="{y:g}"{more}>{escape(text)}</text>'


def panel_lines(panel: Panel, top: float) -> tuple[list[str], float]:
    """The panel as SVG, and where it ends."""
    longest = max(1.0, *(share for row in panel.rows.values() for share in row.values()))
    scale = (WIDTH - LEFT - RIGHT - 30) / longest
    lines = [text_at(12, top + 16, panel.title, font_weight="bold", font_size=13)]
    y = top + TITLE
    for label, row in panel.rows.items():
        middle = y + BAR * len(row) / 2
        lines.append(text_at(LEFT - 8, middle + 4, label, text_anchor="end"))
        for name in (name for name in SHOWN if name in row):
            wide = row[name] * scale
            colour = COLOURS[name]
            place = f'x="{LEFT}" y="{y:g}" width="{wide:.1f}" height="{BAR - 2}"'
            lines.append(f'<rect {place} fill="{colour}"/>')
            strong = {"font_weight": "bold"} if name == "ctask" else {"fill": "#6b7280"}
            lines.append(
                text_at(LEFT + wide + 5, y + 9, f"{row[name]:.2f}", font_size=10, **strong)
            )
            y += BAR
        y += GAP
    at = f"{LEFT + scale:.1f}"
    place = f'x1="{at}" x2="{at}" y1="{top + TITLE - 5:g}" y2="{y - GAP + 3:g}"'
    lines.append(f'<line {place} stroke="#22262e"/>')
    lines.append(
        text_at(LEFT + scale, top + TITLE - 8, BASELINE, text_anchor="middle", font_size=10)
    )
    return lines, y


def draw(text: str) -> str:
    """The chart as SVG, from the text of the page."""
    body: list[str] = []
    x, y = float(LEFT), 8.0
    for name in SHOWN:
        body.append(f'<rect x="{x:g}" y="{y:g}" width="12" height="11" fill="{COLOURS[name]}"/>')
        body.append(text_at(x + 17, y + 10, name))
        x += 40 + 7 * len(name)
    y += 24
    for panel in panels(text):
        lines, y = panel_lines(panel, y)
        body += lines
        y += 8
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:g}" '
            f'viewBox="0 0 {WIDTH} {y:g}" font-family="sans-serif" font-size="12" fill="#22262e">',
            '<rect width="100%" height="100%" fill="white"/>',
            *body,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    CHART.write_text(draw(PAGE.read_text()))
