"""The figures of a report: points with intervals, distinguished by shape as well as by colour.

A figure is drawn for the width of a phone and grows with its box. Its text stays text and takes the
colour of the page, so that it is legible in light, in dark and in print. The same rows give the
same bytes.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from math import inf
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from warehouse.characters import all_visible, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
Names = Sequence[str]
Plot = Callable[..., str]
Draw = Callable[["Figure", Rows, str, Names], None]

# Okabe and Ito's colours without black and yellow, which vanish on dark and on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Stands for the colour of the page's text until the SVG is written.
_INK = "#010203"
_WIDTH = 4.7
_LABEL_HEIGHT = 0.05
"""Of a label, as a share of a plot's height."""
_MOST_THRESHOLDS = 5
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"


def arms_plot(rows: Rows, *, title: str, names: Names = ()) -> str:
    """Returns a figure of one metric: a point and an interval per arm and grader.

    `rows` are those of `evaluation` of one suite, metric and slice; a point whose row is not
    `reportable` is hollow. `names` are the graders of all plots that stand together, so that each
    looks the same in all.
    """
    return _svg(_draw_arms, rows, title, names)


def attacks_plot(rows: Rows, *, title: str, names: Names = ()) -> str:
    """Returns a figure with a line per attack, and a point and an interval per arm.

    `rows` are those of `attacks` of one suite, grader and score; `names` are the arms of all plots.
    """
    return _svg(_draw_attacks, rows, title, names)


def compute_plot(rows: Rows, *, title: str, names: Names = ()) -> str:
    """Returns a figure of a metric over the reasoning tokens used; a point bears its budget.

    `rows` are those of `compute` of one suite, metric and grader; `names` are the arms of all
    plots.
    """
    return _svg(_draw_compute, rows, title, names)


def tradeoff_plot(rows: Rows, *, title: str, names: Names = ()) -> str:
    """Returns a figure of safety over help: a point per arm, with the intervals of both.

    `rows` are those of `evaluation` of one suite, grader and metric of safety; the keys
    `across_mean`, `across_low` and `across_high` hold the metric of help, and `across` names it.
    `names` are the arms of all plots.
    """
    return _svg(_draw_tradeoff, rows, title, names)


def calibration_plot(rows: Rows, *, title: str, names: Names = ()) -> str:
    """Returns a figure of precision and recall over the number of grades, a line per threshold.

    `rows` are those of `calibration` of one grader and gold; of many thresholds a few are drawn.
    """
    return _svg(_draw_calibration, rows, title, names)


def png(plot: Plot, rows: Rows, *, title: str, names: Names = ()) -> bytes:
    """Returns a figure as PNG on white, for places that show no SVG."""
    draw = _DRAWN[plot]
    rows, title, names = _shown(rows), _shown(title), _shown(names)
    return _save(draw, rows, title, names, form="png", ink="#1a1a1a", dpi=160, facecolor="white")


def _draw_arms(figure: "Figure", rows: Rows, title: str, names: Names) -> None:
    arms, graders = _names(rows, "arm"), _names(rows, "grader")
    axes = figure.subplots()
    _set_height(figure, 0.75 + len(arms) * (0.16 + 0.14 * len(graders)) + _legend_height(graders))
    looks = _looks(names or graders)
    for place, grader in enumerate(graders):
        shift = (place - (len(graders) - 1) / 2) * 0.24
        for row in (row for row in rows if row["grader"] == grader):
            _point(axes, arms.index(row["arm"]) + shift, row, looks[grader], label=grader)
    _across(axes, arms, title)
    _legend(figure, axes)


def _draw_attacks(figure: "Figure", rows: Rows, title: str, names: Names) -> None:
    attacks, arms = _names(rows, "attack"), _names(rows, "arm")
    axes = figure.subplots()
    _set_height(figure, 0.75 + len(attacks) * (0.14 + 0.11 * len(arms)) + _legend_height(arms))
    looks = _looks(names or arms)
    for place, arm in enumerate(arms):
        shift = (place - (len(arms) - 1) / 2) * 0.8 / len(arms)
        for row in (row for row in rows if row["arm"] == arm):
            _point(axes, attacks.index(row["attack"]) + shift, row, looks[arm], label=arm)
    for line in range(1, len(attacks)):
        axes.axhline(line - 0.5, color=_ink(), alpha=0.25, linewidth=0.5)
    _across(axes, attacks, title)
    _legend(figure, axes)


def _draw_compute(figure: "Figure", rows: Rows, title: str, names: Names) -> None:
    rows = [row for row in rows if None not in (row["mean"], row["mean_reasoning_tokens"])]
    arms = _names(rows, "arm")
    axes = figure.subplots()
    _set_height(figure, 2.9 + _legend_height(arms))
    looks = _looks(names or arms)
    for arm in arms:
        colour, _ = looks[arm]
        points = sorted(
            (row for row in rows if row["arm"] == arm), key=lambda row: row["mean_reasoning_tokens"]
        )
        tokens = [row["mean_reasoning_tokens"] for row in points]
        means = [row["mean"] for row in points]
        for row, at in zip(points, tokens, strict=True):
            axes.plot([at, at], _ends(row), color=colour, linewidth=1.4)
        axes.plot(tokens, means, color=colour, linewidth=1, alpha=0.6)
        for row, at in zip(points, tokens, strict=True):
            _marker(axes, at, row["mean"], looks[arm], row, label=arm)
    lowest = min((end for row in rows for end in _ends(row)), default=0.0)
    bottom = max(0.0, int(lowest * 10 - 0.5) / 10) - 0.02
    axes.set_ylim(bottom, 1.04)
    for at, mean, budgets in _budgets(rows, height=1.04 - bottom):
        axes.annotate(budgets, (at, mean), (4, 5), textcoords="offset points", fontsize=8)
    axes.margins(x=0.12)
    axes.set_xlabel("reasoning tokens, mean (at each point its budget)")
    axes.grid(color=_ink(), alpha=0.15, linewidth=0.6)
    _title(axes, title)
    _legend(figure, axes)


def _budgets(rows: Rows, *, height: float) -> list[tuple[float, float, str]]:
    """Returns the budgets of points as labels, each with its place.

    Points of an arm that would cover each other share the label of the highest, and so do points of
    several arms with the same budget. `height` is that of the plot, in its values.
    """
    lengths = [row["mean_reasoning_tokens"] for row in rows]
    near = 0.03 * (max(lengths) - min(lengths)) if rows else 0.0
    labels: list[tuple[Mapping[str, Any], set[float]]] = []
    for row in sorted(rows, key=lambda row: row["mean"], reverse=True):
        budget = inf if row["budget"] is None else row["budget"]
        shared = (
            budgets
            for top, budgets in labels
            if abs(top["mean_reasoning_tokens"] - row["mean_reasoning_tokens"]) <= near
            and top["mean"] - row["mean"] <= _LABEL_HEIGHT * height
            and (top["arm"] == row["arm"] or budget in budgets)
        )
        if budgets := next(shared, None):
            budgets.add(budget)
        else:
            labels.append((row, {budget}))
    return [
        (top["mean_reasoning_tokens"], top["mean"], ", ".join(map(_budget, sorted(budgets))))
        for top, budgets in labels
    ]


def _budget(tokens: float) -> str:
    return "free" if tokens == inf else f"{tokens:.0f}"


def _draw_tradeoff(figure: "Figure", rows: Rows, title: str, names: Names) -> None:
    rows = [row for row in rows if None not in (row["mean"], row["across_mean"])]
    arms = _names(rows, "arm")
    axes = figure.subplots()
    _set_height(figure, 3.4 + _legend_height(arms))
    looks = _looks(names or arms)
    for row in rows:
        colour, _ = looks[row["arm"]]
        across = {end: row[f"across_{end}"] for end in ("mean", "low", "high")}
        axes.plot([across["mean"]] * 2, _ends(row), color=colour, linewidth=1.4)
        axes.plot(_ends(across), [row["mean"]] * 2, color=colour, linewidth=1.4)
    for row in rows:
        _marker(axes, row["across_mean"], row["mean"], looks[row["arm"]], row, label=row["arm"])
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel(textwrap.fill(rows[0]["across"] if rows else "", 52))
    axes.grid(color=_ink(), alpha=0.15, linewidth=0.6)
    _title(axes, title)
    _legend(figure, axes)


def _draw_calibration(figure: "Figure", rows: Rows, title: str, names: Names) -> None:
    every = sorted({row["threshold"] for row in rows})
    step = max(1, -(-len(every) // _MOST_THRESHOLDS))
    # From the strictest down: those are the ones that filters use.
    thresholds = every[::-1][::step][::-1]
    looks = _looks(thresholds)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _set_height(figure, 4.3 + _legend_height(thresholds))
    for axes, name in ((upper, "precision"), (lower, "recall")):
        for threshold in thresholds:
            colour, marker = looks[threshold]
            points = sorted(
                (r for r in rows if r["threshold"] == threshold and r[name] is not None),
                key=lambda row: row["k"],
            )
            axes.plot(
                [row["k"] for row in points],
                [row[name] for row in points],
                color=colour,
                marker=marker,
                markeredgecolor=_ink(),
                markeredgewidth=0.6,
                linewidth=1.2,
                label=_marked(f"{threshold:g}"),
            )
        axes.set_ylabel(name)
        axes.set_ylim(-0.03, 1.03)
        axes.grid(color=_ink(), alpha=0.15, linewidth=0.6)
    lower.set_xticks(sorted({row["k"] for row in rows}))
    lower.set_xlabel("grades that must all accept")
    _title(upper, title)
    _legend(figure, lower, title="threshold")


_DRAWN: dict[Plot, Draw] = {
    arms_plot: _draw_arms,
    attacks_plot: _draw_attacks,
    compute_plot: _draw_compute,
    tradeoff_plot: _draw_tradeoff,
    calibration_plot: _draw_calibration,
}


def _shown(value: Any) -> Any:
    """Returns names as lines that XML can hold."""
    return all_visible(value, one_line)


def _names(rows: Rows, column: str) -> list[Any]:
    """Returns the distinct values of a column, in the order of the rows."""
    return list(dict.fromkeys(row[column] for row in rows))


def _looks(names: Sequence[Any]) -> dict[Any, tuple[str, str]]:
    """Returns a colour and a shape by name; six and eight repeat together only after 24."""
    return dict(zip(names, zip(cycle(_COLOURS), cycle(_MARKERS), strict=False), strict=False))


def _ends(row: Mapping[str, Any]) -> tuple[float, float]:
    """Returns the ends of a row's interval; its mean twice if it has none."""
    mean = row["mean"]
    low, high = row.get("low"), row.get("high")
    return (mean if low is None else low, mean if high is None else high)


def _point(
    axes: "Axes", height: float, row: Mapping[str, Any], look: tuple[str, str], *, label: str
) -> None:
    if row["mean"] is None:
        return
    axes.plot(_ends(row), [height, height], color=look[0], linewidth=2, solid_capstyle="butt")
    _marker(axes, row["mean"], height, look, row, label=label)


def _marker(
    axes: "Axes",
    x: float,
    y: float,
    look: tuple[str, str],
    row: Mapping[str, Any],
    *,
    label: str,
) -> None:
    is_reportable = row.get("reportable", True)
    axes.plot(
        [x],
        [y],
        linestyle="",
        marker=look[1],
        markersize=6,
        markerfacecolor=look[0] if is_reportable else "none",
        markeredgecolor=_ink(),
        markeredgewidth=0.6 if is_reportable else 1.2,
        label=_marked(label),
    )


def _marked(name: Any) -> str:
    """Returns a name as a label of matplotlib, which leaves out labels that begin with `_`."""
    return f"={name}"


def _across(axes: "Axes", names: Sequence[str], title: str) -> None:
    """Sets a scale from 0 to 1 across, and names from the top down."""
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 20) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.grid(axis="x", color=_ink(), alpha=0.15, linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    _title(axes, title)


def _title(axes: "Axes", title: str) -> None:
    axes.set_title(textwrap.fill(title, 52), loc="left", fontsize=10, fontweight="bold")


def _legend(figure: "Figure", axes: "Axes", *, title: str | None = None) -> None:
    handles, labels = axes.get_legend_handles_labels()
    # A hollow point says something of one arm, not of its shape, so full points come first.
    pairs = sorted(
        zip(handles, labels, strict=True),
        key=lambda pair: getattr(pair[0], "get_markerfacecolor", str)() == "none",
    )
    once = {label: handle for handle, label in reversed(pairs)}
    order = list(dict.fromkeys(labels))
    names = [label.removeprefix("=") for label in order]
    figure.legend(
        [once[label] for label in order],
        names,
        loc="outside lower left",
        ncols=_columns(names),
        frameon=False,
        title=title,
        alignment="left",
    )


def _columns(names: Sequence[Any]) -> int:
    return 2 if max(len(str(name)) for name in names) > 9 else 5


def _legend_height(names: Sequence[Any]) -> float:
    return 0.1 + 0.2 * -(-len(names) // _columns(names))


def _set_height(figure: "Figure", inches: float) -> None:
    figure.set_size_inches(_WIDTH, inches)


def _ink() -> Any:
    """Returns the colour of text in the figure being drawn."""
    import matplotlib as mpl

    return mpl.rcParams["text.color"]


def _save(
    draw: Draw,
    rows: Rows,
    title: str,
    names: Names,
    *,
    form: str,
    ink: str,
    **options: Any,
) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        # Ids of figures with other titles differ, so that many can stand in one page.
        "svg.hashsalt": title,
        # A dollar in the name of an arm is a dollar.
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # A name may be in a script that the font lacks, or longer than the figure is wide: the page
        # has fonts of its own, and the figure is drawn all the same.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font|constrained_layout not")
        figure = Figure(layout="constrained", facecolor=options.pop("facecolor", "none"))
        draw(figure, rows, title, names)
        buffer = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
        figure.savefig(buffer, format=form, metadata=metadata, **options)
    return buffer.getvalue()


def _svg(draw: Draw, rows: Rows, title: str, names: Names) -> str:
    """Returns a figure as an SVG element that can stand in a page beside others."""
    rows, title, names = _shown(rows), _shown(title), _shown(names)
    root = ElementTree.fromstring(_save(draw, rows, title, names, form="svg", ink=_INK))
    # A style element would apply to the whole page.
    for parent, name in ((root, "metadata"), (root.find(f"{{{_SVG}}}defs"), "style")):
        assert parent is not None
        for element in parent.findall(f"{{{_SVG}}}{name}"):
            parent.remove(element)
    for element in root.iter():
        if _XLINK in element.attrib:
            element.set("href", element.attrib.pop(_XLINK))
    written = ElementTree.tostring(root, encoding="unicode")
    for element in root.iter():
        named = element.get("id")
        if named and f"#{named}" not in written:
            # Every figure has groups of the same names (figure_1, axes_1), and ids must be unique.
            del element.attrib["id"]
        for place in ("d", "x", "y", "transform"):
            if place in element.attrib:
                # No screen shows less than a hundredth of a point.
                element.set(place, re.sub(r"(\.\d\d)\d+", r"\1", element.attrib[place]))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    root.set("role", "img")
    root.set("aria-label", title)
    heading = ElementTree.Element(f"{{{_SVG}}}title")
    heading.text = title
    root.insert(0, heading)
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode").replace(_INK, "currentColor")
