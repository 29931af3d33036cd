"""Pictures for the UI: a day against its baseline, and a measure over time.

PNG inside Markdown as a ``data:`` URI, which Dagster's UI draws in place; 25 to 50 kB each. Drawn
without pyplot, so nothing is shared between threads and no display is looked for.
"""

import base64
import io
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from checks.quality.judgement import JudgedDay, Judgement
from millrace.quality.finding import Finding, Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE_IN = (6.4, 2.6)
_DPI = 80
_LEFT, _WIDTH, _TOP = 0.11, 0.87, 0.89
"""Of the axes, as shares of the picture."""
_BASELINE, _ACTUAL, _LIMIT = "#9aa5b1", "#2563eb", "#dc2626"
_LABEL_LENGTH = 14
_MOST_TICKS = 24
_POINTS_PER_INCH = 72


def finding_pictures(
    judgement: Judgement, judged: JudgedDay, findings: Sequence[Finding]
) -> dict[str, str]:
    """Return up to two pictures as Markdown, by title: the worst histogram, the worst trend."""
    ordered = sorted(findings, key=_badness, reverse=True)
    pictures = {}
    drawn = next((f for f in ordered if f.histogram is not None), None)
    if drawn is not None and drawn.histogram is not None:
        title = f"{drawn.column or 'rows'} on {judged.day} and in {drawn.baseline_days} days before"
        pictures["histogram"] = histogram_picture(drawn.histogram, title)
    for finding in ordered:
        points = _points(judgement, finding.rule.name)
        if len(points) > 1:
            pictures["over_time"] = trend_picture(points, finding, judged.day)
            break
    return pictures


def _badness(finding: Finding) -> tuple[bool, float]:
    """Failed first, then by how much of what is allowed was used."""
    limit = finding.high if finding.high is not None else finding.low
    if finding.value is None or not limit:
        return finding.is_alarm, 0.0
    return finding.is_alarm, abs(finding.value / limit)


def _points(judgement: Judgement, rule: str) -> list[tuple[date, float]]:
    values = dict(judgement.earlier.get(rule, ()))
    for judged in judgement.days:
        for finding in judged.findings:
            if finding.rule.name == rule and finding.value is not None:
                values[judged.day] = finding.value
    return sorted(values.items())


def histogram_picture(histogram: Histogram, title: str) -> str:
    """Draw the share of rows in each bin, the baseline beside the day."""
    figure, axes = _figure(title, bottom=0.27)
    places = range(len(histogram.labels))
    # Thick lines: `bar` makes an artist of each, which takes longer than all the rest.
    width_pt = 0.4 * _WIDTH * _SIZE_IN[0] * _POINTS_PER_INCH / (1 + len(places))
    for offset, counts, colour, name in (
        (-0.2, histogram.baseline, _BASELINE, "baseline"),
        (0.2, histogram.actual, _ACTUAL, "this day"),
    ):
        total = sum(counts) or 1.0
        shares = [100 * count / total for count in counts]
        at = [place + offset for place in places]
        axes.vlines(at, 0, shares, colors=colour, linewidth=width_pt, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlim(-1, len(places))
    axes.set_ylabel("% of rows", fontsize=8)
    step = 1 + len(histogram.labels) // _MOST_TICKS
    axes.set_xticks(list(places)[::step])
    labels = [label[:_LABEL_LENGTH] for label in histogram.labels]
    axes.set_xticklabels(labels[::step], rotation=45, ha="right", fontsize=7)
    axes.legend(fontsize=7, frameon=False)
    return _markdown(figure, title)


def trend_picture(points: Sequence[tuple[date, float]], finding: Finding, marked: date) -> str:
    """Draw a measure over days with the limits of ``finding``; ``marked`` is its day."""
    of = f" of {finding.column}" if finding.column else ""
    title = f"{finding.rule.type}{of} by day"
    figure, axes = _figure(title, bottom=0.12)
    days = [day.toordinal() for day, _ in points]
    axes.plot(days, [value for _, value in points], color=_ACTUAL, marker=".", markersize=4)
    here = dict(points).get(marked)
    if here is not None:
        colour = _LIMIT if finding.is_alarm else _ACTUAL
        axes.plot([marked.toordinal()], [here], color=colour, marker="o", markersize=7)
    for limit, name in ((finding.high, "at most"), (finding.low, "at least")):
        if limit is not None:
            axes.axhline(limit, color=_LIMIT, linewidth=1, linestyle="--")
            axes.annotate(name, (days[0], limit), fontsize=7, color=_LIMIT, va="bottom")
    step = max(1, len(days) // 8)
    axes.set_xticks(days[::step])
    names = [f"{day:%d %b}" for day, _ in points]
    axes.set_xticklabels(names[::step], fontsize=7)
    return _markdown(figure, title)


def _figure(title: str, *, bottom: float) -> "tuple[Any, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_IN, dpi=_DPI)
    FigureCanvasAgg(figure)
    # A layout that is fitted to its labels draws each of them three times.
    axes = figure.add_axes((_LEFT, bottom, _WIDTH, _TOP - bottom))
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(axis="y", labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _markdown(figure: Any, title: str) -> str:
    written = io.BytesIO()
    # Without the software's name the same numbers give the same bytes.
    figure.savefig(written, format="png", metadata={"Software": None})
    text = base64.b64encode(written.getvalue()).decode("ascii")
    name = title.replace("[", "(").replace("]", ")")
    return f"![{name}](data:image/png;base64,{text})"
