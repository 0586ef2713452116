"""An explanation as one picture: what mattered, what taught it, what was considered, and where the weights moved."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from runtime.cli.reasons import comparable, strength, weights

BLUE, PURPLE, GREEN, AMBER, GREY, PALE, INK = (
    "#1f6feb",
    "#8250df",
    "#1a7f37",
    "#bc4c00",
    "#6e7781",
    "#d0d7de",
    "#1f2328",
)
STYLE = {
    "font.size": 9,
    "text.parse_math": False, "text.color": INK, "axes.edgecolor": PALE, "axes.labelcolor": GREY, "axes.titlesize": 10.5,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "xtick.color": GREY, "ytick.color": INK, "ytick.major.size": 0, "svg.hashsalt": "corrigible",
}  # fmt: skip
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Hiragino Sans", "Microsoft YaHei")
LONG, WIDE = 34, 46  # characters of a label, and of a line where there is room for two
MOST = 8  # causes and candidates that are drawn
ODDS = (
    1,
    2,
    10,
    100,
    1000,
    1.5,
    3,
    5,
    20,
    50,
    300,
    10**5,
    10**8,
    10**12,
)  # times, at the ticks; those that come first have precedence


def draw(found: dict[str, Any], path: Path) -> None:
    """Write `corrigible explain`'s answer as PNG or SVG, by the file's ending."""
    fonts = [name for name in FONTS if name in font_manager.get_font_names()]
    with matplotlib.rc_context({**STYLE, "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a font that lacks a script draws boxes
        layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, hspace=0.04, wspace=0.03)
        figure = Figure(figsize=(13, 8.6), layout=layout, facecolor="white")
        figure.suptitle(_title(found), x=0.012, ha="left", fontsize=13, fontweight="bold")
        parts: Any = figure.subfigures(2, 2)  # each with margins of its own
        panels = [part.subplots() for part in parts.flat]
        _mattered(panels[0], found["mattered"])
        _taught(panels[1], found.get("remembered", []))
        _considered(panels[2], found["candidates"], found["action"])
        _moved(panels[3], found["changes"])
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def _title(found: dict[str, Any]) -> str:
    proof = found.get("proof") or {}
    said = ""
    if proof.get("state") == "done":
        said = "   ·   without its causes: " + (f"{proof['both']['without']}" if proof["flips"] else "the same")
    return "\n".join([*textwrap.wrap(found["text"], 110)[:3], f"→ {found['action']}{said}"])


def _short(text: str) -> str:
    return text if len(text) <= LONG else text[: LONG - 1].rstrip() + "…"


def _two_lines(text: str) -> str:
    """Situations begin alike: what differs is further behind."""
    return "\n".join(textwrap.wrap(text, WIDE, max_lines=2, placeholder=" …"))


def _empty(axes: Axes, title: str, why: str) -> None:
    axes.set_title(title)
    axes.text(0.0, 0.92, why, color=GREY, transform=axes.transAxes, va="top", wrap=True)
    axes.set_axis_off()


def _mattered(axes: Axes, found: dict[str, Any]) -> None:
    """In the order of the situation, so that it can be read down."""
    title = "What of the situation mattered"
    pieces = [piece for piece in found["pieces"] if comparable(piece)]
    if not pieces:
        _empty(axes, title, found.get("note") or "there is nothing that can be left out and compared")
        return
    places, falls = range(len(pieces)), [strength(piece) for piece in pieces]
    axes.barh(places, falls, height=0.62, color=[BLUE if fall > 0 else AMBER for fall in falls])
    axes.plot([p["weights"] for p in pieces], places, "D", markersize=4, color="white", markeredgecolor=INK)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(places, [_short(piece["text"]) for piece in pieces])
    axes.invert_yaxis()
    _odds(axes, [*falls, *(p["weights"] for p in pieces)])
    against = f" rather than {_short(found['against'])}" if found["against"] else ""
    axes.set_title(title)
    axes.set_xlabel(f"makes {_short(found['action'])}{against}\nso many times likelier  (◇ by the weights alone)")


def _odds(axes: Axes, values: Sequence[float]) -> None:
    """Log-odds on the axis, times at its ticks."""
    least, most = min(0.0, *values), max(0.0, *values)
    room = max(0.06 * (most - least), 0.1)
    axes.set_xlim(least - room, most + room)
    ticks = [(sign * math.log(odds), odds, sign) for odds in ODDS for sign in (1, -1)]
    kept: list[tuple[float, float, int]] = []
    for tick in ticks:  # none too near to another
        inside = least - room <= tick[0] <= most + room
        if inside and all(abs(tick[0] - other[0]) > 0.08 * (most - least + 2 * room) for other in kept):
            kept.append(tick)
    axes.set_xticks([at for at, *_ in kept], [_times(odds, sign) for _, odds, sign in kept])


def _times(odds: float, sign: int) -> str:
    number = f"{odds:,g}" if odds < 10**5 else f"1e{round(math.log10(odds))}"
    return "1" if odds == 1 else f"×{number}" if sign > 0 else f"÷{number}"


def _taught(axes: Axes, causes: Sequence[dict[str, Any]]) -> None:
    title = "What was taught before"
    if not causes:
        _empty(axes, title, "nothing that was taught speaks for it")
        return
    shown = causes[:MOST]
    axes.barh(range(len(shown)), [c["part"] for c in shown], height=0.62,
              color=[GREEN if c.get("named") else PALE for c in shown])  # fmt: skip
    axes.set_yticks(range(len(shown)), [_two_lines(c["text"]) for c in shown], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_title(title)
    axes.set_xlabel("its part in what the memory says for it\n(green: the causes that are named)")


def _considered(axes: Axes, candidates: Sequence[dict[str, Any]], action: str) -> None:
    title = "What was considered"
    if not candidates:
        _empty(axes, title, "nothing was considered: the answer was known")
        return
    shown = list(candidates[:MOST])
    for offset, (key, name, colour) in enumerate(
        (("p_model", "the model", PURPLE), ("p_memory", "the memory", GREEN), ("p", "both", BLUE))
    ):
        axes.barh([i + (offset - 1) * 0.26 for i in range(len(shown))], [100 * (c.get(key) or 0.0) for c in shown],
                  height=0.24, color=colour, label=name)  # fmt: skip
    axes.set_yticks(range(len(shown)), [_short(c["action"]) for c in shown])
    for label, candidate in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if candidate["action"] == action else "normal")
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.legend(loc="lower right", frameon=False)
    axes.set_title(title)
    axes.set_xlabel("chance, %")


def _moved(axes: Axes, found: dict[str, Any] | None) -> None:
    """Layers down, modules across, by how far each moved; beside it how alike each layer is to the version before."""
    title = "Where the weights moved"
    if not found or not found["modules"]:
        _empty(axes, title, "the base model decided: its weights never moved")
        return
    inner = [m for m in found["modules"] if m["layer"] is not None] or found["modules"]
    columns = list(dict.fromkeys(m["module"] for m in inner))
    layers = list(dict.fromkeys(m["layer"] for m in inner))
    relative = all(m["share"] is not None for m in inner)
    cells = {(m["layer"], m["module"]): 100 * m["share"] if relative else m["moved"] for m in inner}
    grid = [[cells.get((layer, column), math.nan) for column in columns] for layer in layers]
    image = axes.imshow(grid, cmap="YlGnBu", vmin=0, aspect="auto")
    _bar(axes, image, "% of the size of the base weights" if relative else "size of the change")
    axes.set_xticks(range(len(columns)), [c.rsplit(".", 1)[-1] for c in columns], rotation=30, ha="right")
    axes.set_yticks(range(len(layers)), ["" if layer is None else f"layer {layer}" for layer in layers], fontsize=8)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    axes.set_xlabel("\n".join(textwrap.wrap(_story(found), 2 * LONG)), loc="left")
    _alike(axes, inner, layers)


def _bar(axes: Axes, image: Any, label: str) -> None:
    bar = axes.figure.colorbar(image, ax=axes, pad=0.09, aspect=28)
    bar.outline.set_visible(False)
    bar.set_label(label)


def _alike(axes: Axes, modules: Sequence[dict[str, Any]], layers: Sequence[Any]) -> None:
    """Behind each row: the mean cosine of its modules with the version before."""
    known: defaultdict[Any, list[float]] = defaultdict(list)
    for module in modules:
        if module["similarity"] is not None:
            known[module["layer"]].append(module["similarity"])
    edge = axes.get_xlim()[1]
    for row, layer in enumerate(layers):
        if known[layer]:
            alike = sum(known[layer]) / len(known[layer])
            axes.text(edge + 0.15, row, f"{100 * alike:.0f} %", va="center", fontsize=8, color=GREY, clip_on=False)
    if known and any(known.values()):
        axes.text(edge + 0.15, len(layers) - 0.2, "alike", va="center", fontsize=8, color=GREY, clip_on=False)


def _story(found: dict[str, Any]) -> str:
    lessons, flips = found["lessons"], found["flips"]
    decisions = (
        "" if flips is None else f"; {len(flips)} of {found['asked']} earlier situations would be decided otherwise"
    )
    return f"{found['id']} since {found['since']}: {lessons['new']} new lessons, {lessons['gone']} gone; {'; '.join(weights(found))}{decisions}"
