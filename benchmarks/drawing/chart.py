"""Draws a result as horizontal bars, asyncio being 1, or delays as curves: `--chart OUT.svg` writes
SVG and, beside it, PNG.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..contenders import BASELINE
from . import report

COLOURS = {
    "ctask": "#d1495b",
    "ctask-wheel": "#8f2f3c",
    "ctask-loop": "#e39aa4",
    "uvloop": "#4c78a8",
    "rloop": "#7fb3ab",
    "zuvloop": "#d3b88c",
    "aiofastnet": "#9a86b5",
    "protocol-limit": "#a9adb4",
    "c-limit": "#7d828b",
}
INK, FAINT = "#22262e", "#6b7280"
BAR = 0.145  # inches from one bar to the next
GROUP_GAP = 0.12  # inches between two scenarios
TITLES = {
    "time": "CPU time per operation, asyncio = 1",
    "instructions": "Instructions per operation, asyncio = 1",
    "memory": "Memory per object, asyncio = 1",
    "network": "Server's CPU time per request, asyncio = 1",
    "programs": "Program's CPU time per request, asyncio = 1",
}


def groups(result: dict[str, Any], names: list[str]) -> list[tuple[str, dict[str, float]]]:
    """Label and ratios of each group of bars, the geometric mean first."""
    found = []
    means = {name: mean for name in names if (mean := report.geometric_mean(result, name))}
    if means:
        found.append(("geometric mean", means))
    for key, row in result["values"].items():
        ratios = {name: share for name in names if (share := report.ratio(row, name))}
        found.append((result["titles"][key], ratios))
    return found


def legend_places(
    result: dict[str, Any], names: list[str], left: float, right: float
) -> list[tuple[str, str, float, float]]:
    """Name, text and, in inches, the line's distance from the first and x of each entry."""
    places = []
    x, y = left, 0.0
    for name in names:
        text = f"{name} {result['contenders'][name]['version']}".removesuffix(" -")
        wide = 0.37 + 0.075 * len(text)
        if x > left and x + wide > right:
            x, y = left, y + 0.2
        places.append((name, text, y, x))
        x += wide
    return places


def plotting() -> Any:
    """matplotlib.pyplot, with this style."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("--chart needs matplotlib: pip install 'ctask[bench]'") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.family": "sans-serif",
            "font.size": 9,
            "svg.fonttype": "path",
            "svg.hashsalt": "ctask",
        }
    )
    return plt


def save(figure: Any, svg: Path) -> None:
    for suffix, extra in ((".svg", {"metadata": {"Date": None}}), (".png", {"dpi": 150})):
        figure.savefig(svg.with_suffix(suffix), **extra)


def subtitle(result: dict[str, Any]) -> str:
    machine = result["host"]
    python = machine["python"].removesuffix(" (release)")
    return f"Smaller is better. {python}, {machine['cpu']}, {machine['date'][:10]}"


def draw_curves(result: dict[str, Any], svg: Path) -> None:
    """Of round trips: a panel for each load, in it a curve of percentiles for each contender."""
    plt = plotting()
    names = report.columns(result)
    rows = {key: row for key, row in result["values"].items() if key.startswith("echo/") and row}
    if not rows:
        raise SystemExit("a chart of delays needs the echoes")
    across = min(3, len(rows))
    down = -(-len(rows) // across)
    height = 2.1 * down + 1.1
    figure, panels = plt.subplots(
        down, across, figsize=(8.4, height), squeeze=False, sharey=True, facecolor="white"
    )
    marks = (0.5, 0.9, 0.99, 0.999, 0.9999)
    for axes, (key, row) in zip(panels.flat, rows.items(), strict=False):
        for name in names:
            if name in row:
                shares, delays = zip(*row[name]["curve"], strict=True)
                colour = COLOURS.get(name, INK)
                axes.plot(
                    [1 / (1 - share) for share in shares],
                    [delay * 1000 for delay in delays],
                    color=colour,
                    linewidth=1.8 if name == "ctask" else 1.1,
                    label=name,
                )
        axes.set(xscale="log", yscale="log", xlim=(1, 10_000))
        axes.set_xticks([1 / (1 - mark) for mark in marks], [f"{mark * 100:g}" for mark in marks])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_title(result["titles"][key].split(": ", 1)[1], fontsize=9, color=INK, loc="left")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=FAINT, labelsize=7)
        axes.grid(color="#eceef1", linewidth=0.8)
    for axes in list(panels.flat)[len(rows) :]:
        axes.set_axis_off()
    figure.text(
        0.02,
        1 - 0.22 / height,
        "Round trip in ms, by percentile",
        size=13,
        weight="bold",
        color=INK,
        va="center",
    )
    figure.text(0.02, 1 - 0.47 / height, subtitle(result), color=FAINT, va="center")
    lines = {line.get_label(): line for axes in panels.flat for line in axes.lines}
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="upper left",
        bbox_to_anchor=(0.01, 1 - 0.58 / height),
        ncols=len(lines),
        frameon=False,
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.85 / height))
    save(figure, svg)
    plt.close(figure)


def draw(result: dict[str, Any], svg: Path) -> None:
    plt = plotting()
    from matplotlib.patches import Rectangle

    contenders = report.columns(result)
    # Reversed, so that ctask is at the top of each group.
    names = [name for name in reversed(contenders) if name != BASELINE]
    bars = groups(result, names)
    pitch = BAR * len(names) + GROUP_GAP
    longest = max(share for _, ratios in bars for share in ratios.values())
    limit = max(1.0, longest) * 1.08
    height = pitch * len(bars)
    label_width = 0.065 * max(len(label) for label, _ in bars)  # inches, at 9 points
    bottom, left, right = 0.38, max(2.1, label_width), 0.25
    width = 8.4
    legend = legend_places(result, names, left, width - right)
    top = 1.02 + legend[-1][2]
    figure = plt.figure(figsize=(width, height + top + bottom), facecolor="white")
    axes = figure.add_axes(
        (
            left / width,
            bottom / (height + top + bottom),
            (width - left - right) / width,
            height / (height + top + bottom),
        )
    )
    axes.set(xlim=(0, limit), ylim=(height, 0), yticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0, colors=FAINT)
    axes.grid(axis="x", color="#eceef1", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axvline(1, color=INK, linewidth=1)

    for i, (label, ratios) in enumerate(bars):
        start = i * pitch + GROUP_GAP / 2
        mean = label == "geometric mean"
        if mean:
            axes.axhspan(i * pitch, (i + 1) * pitch, color="#f4f5f7", zorder=0)
        axes.text(
            -0.015 * limit,
            start + BAR * len(names) / 2,
            label,
            ha="right",
            va="center",
            color=INK,
            weight="bold" if mean else "normal",
        )
        for j, name in enumerate(names):
            if name not in ratios:
                continue
            y = start + BAR * (j + 0.5)
            axes.barh(y, ratios[name], height=BAR * 0.86, color=COLOURS[name])
            strong = mean or name == "ctask"
            axes.text(
                ratios[name] + 0.006 * limit,
                y,
                f"{ratios[name]:.2f}",
                va="center",
                fontsize=7,
                color=INK if strong else FAINT,
                weight="bold" if strong else "normal",
                bbox={
                    "facecolor": "white" if not mean else "#f4f5f7",
                    "edgecolor": "none",
                    "pad": 0.6,
                },
            )

    def inches(y: float) -> float:
        return 1 - y / (height + top + bottom)

    figure.text(
        0.02, inches(0.22), TITLES[result["mode"]], size=13, weight="bold", color=INK, va="center"
    )
    figure.text(0.02, inches(0.47), subtitle(result), color=FAINT, va="center")
    for name, text, y, x in legend:
        figure.patches.append(
            Rectangle(
                (x / width, inches(0.80 + y)),
                0.13 / width,
                0.12 / (height + top + bottom),
                color=COLOURS[name],
                transform=figure.transFigure,
            )
        )
        weight = "bold" if name == "ctask" else "normal"
        figure.text(
            (x + 0.19) / width, inches(0.745 + y), text, va="center", color=INK, weight=weight
        )
    axes.text(1, -0.06, BASELINE, ha="center", va="bottom", color=INK, fontsize=8)
    save(figure, svg)
    plt.close(figure)
