"""Charts as pictures: one drawing each, written as SVG for a page and as PNG.

matplotlib is an extra, so that it is imported when something is drawn. No global state of it is
touched: no pyplot, and a reader's own settings of it are left out, so that equal data are equal
bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from stackmend.pages import COLOURS
from stackmend.worker import figures
from stackmend.worker.pictures.common import shorten
from stackmend.worker.pictures.content import Chart, Series
from stackmend.worker.pictures.palette import MARKERS, SERIES, Theme, choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

#: Points that a picture is wide; a phone shows it nearly as it is.
WIDTH = 350

#: Points to the left and right of the axes, and below them.
LEFT, RIGHT, BOTTOM = 84, 10, 22
HEIGHT_OF_AXES, ROW = 150, 17

#: Above them: with a title, and within a page, which has titles of its own.
TITLED, UNTITLED = 46, 12

#: Of pictures of hosts: room for names, for figures, and for each row.
NAMES, FIGURES, HOST_ROW = 112, 44, 18

#: Places on the axis that get figures below them, and that get a label at all.
MOST_FIGURES, MOST_LABELS = 8, 12

#: Pixels of a PNG for each point.
DENSITY = 3

FONT = 10.0

_PLACES = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"#([\w-]+)")
_SPACE = re.compile(r"\s+")
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


class ExtraMissingError(RuntimeError):
    """What draws pictures is not installed; the text says how to install it."""


def check_extra() -> None:
    """Make sure that pictures can be drawn.

    :raises ExtraMissingError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ExtraMissingError(
            "pictures need matplotlib, which is not installed; "
            "run: pip install 'stackmend[benchmark]'"
        ) from None


def draw_svg(chart: Chart) -> str:
    """A chart as an SVG element for a page: its colours are classes, its text is text.

    :param chart: what it shows.
    :raises ExtraMissingError: matplotlib is not installed.
    """
    with _apply_settings():
        drawing = _draw(chart, "light", UNTITLED)
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        written = io.StringIO()
        FigureCanvasSVG(drawing).print_svg(written, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return _convert(written.getvalue(), chart)


def draw_png(chart: Chart, theme: Theme = "light") -> bytes:
    """A chart as a PNG.

    :param chart: what it shows.
    :param theme: what it will lie on.
    :raises ExtraMissingError: matplotlib is not installed.
    """
    with _apply_settings():
        drawing = _draw(chart, theme, TITLED)
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        written = io.BytesIO()
        drawing.set_dpi(72 * DENSITY)
        FigureCanvasAgg(drawing).print_png(written, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return written.getvalue()


@contextmanager
def _apply_settings() -> Iterator[None]:
    check_extra()
    import matplotlib

    ours: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "stackmend",
        "text.parse_math": False,  # names may hold dollars
        "font.family": ["DejaVu Sans"],  # comes with matplotlib: equal everywhere
        "font.size": FONT,
        "axes.unicode_minus": False,
    }
    plain: dict[Any, Any] = {
        name: value
        for name, value in matplotlib.rcParamsDefault.items()
        if not name.startswith(("backend", "interactive", "toolbar", "webagg"))
    }
    with matplotlib.rc_context(plain | ours), warnings.catch_warnings():
        # A page shows them in a font of the reader's; a PNG shows a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _draw(chart: Chart, theme: Theme, top: float) -> Drawing:
    return {"levels": _draw_levels, "history": _draw_history, "hosts": _draw_hosts}[chart.kind](
        chart, theme, top
    )


class _Sheet:
    """One drawing that is laid out in points, from its top left."""

    def __init__(self, chart: Chart, theme: Theme, height: float, *, titled: bool) -> None:
        from matplotlib.figure import Figure

        self.chart, self.theme, self.height = chart, theme, height
        self.drawing = Figure(
            figsize=(WIDTH / 72, height / 72), dpi=72, facecolor=choose("paper", theme)
        )
        if titled:
            self.write(chart.title, 4, 11, size=11, weight="bold")
            self.write(chart.subtitle, 4, 27, colour="muted")

    def add_axes(self, left: float, top: float, width: float, height: float) -> Axes:
        axes = self.drawing.add_axes(
            (
                left / WIDTH,
                1 - (top + height) / self.height,
                width / WIDTH,
                height / self.height,
            )
        )
        axes.set_facecolor("none")
        for name, spine in axes.spines.items():
            spine.set_visible(name == "bottom")
            spine.set_color(choose("muted", self.theme))
        axes.tick_params(length=0, pad=5, labelsize=FONT, labelcolor=choose("muted", self.theme))
        axes.set_axisbelow(True)
        return axes

    def write(
        self,
        text: str,
        left: float,
        top: float,
        *,
        colour: str = "ink",
        size: float = FONT,
        weight: str = "normal",
        align: str = "left",
    ) -> None:
        self.drawing.text(
            left / WIDTH,
            1 - top / self.height,
            text,
            color=choose(colour, self.theme),
            size=size,
            weight=weight,
            ha=align,
            va="center",
        )

    def mark(self, left: float, top: float, colour: str, marker: str, *, line: str = "-") -> None:
        """A piece of a line with its marker, as a legend has it."""
        from matplotlib.lines import Line2D

        self.drawing.add_artist(
            Line2D(
                [(left - 7) / WIDTH, left / WIDTH, (left + 7) / WIDTH],
                [1 - top / self.height] * 3,
                markevery=[1],
                **self.style(colour, marker, line),
            )
        )

    def style(self, colour: str, marker: str, line: str) -> dict[str, Any]:
        shade = choose(colour, self.theme)
        return {
            "color": shade,
            "marker": marker,
            "markersize": 5.5,
            "linewidth": 1.6,
            "linestyle": line,
            "markeredgewidth": 1,
            "markeredgecolor": shade,
            "markerfacecolor": shade,
        }


#: How each line of a chart of loads looks: colour, marker, line.
_ROLES = {
    "now": ("blue", "o", "-"),
    "high": ("purple", "^", ":"),
    "before": ("orange", "s", "--"),
}


def _draw_levels(chart: Chart, theme: Theme, top: float) -> Drawing:
    count = len(chart.places)
    rows = len(chart.series) if count <= MOST_FIGURES else 0
    legend = len(chart.series)
    height = top + HEIGHT_OF_AXES + BOTTOM + legend * ROW + 6
    sheet = _Sheet(chart, theme, height, titled=top == TITLED)
    width = WIDTH - LEFT - RIGHT
    axes = sheet.add_axes(LEFT, top, width, HEIGHT_OF_AXES)
    places = range(count)
    for series in chart.series:
        _draw_series(sheet, axes, series)
    _set_limits(axes, chart, theme)
    axes.set_xlim(-0.5, count - 0.5)
    ticks = range(0, count, -(-count // MOST_LABELS))
    axes.set_xticks(ticks)
    axes.set_xticklabels([chart.places[place] for place in ticks])
    sheet.write(chart.axis, 4, top + HEIGHT_OF_AXES + 10, colour="muted")
    for index, series in enumerate(chart.series):
        row = top + HEIGHT_OF_AXES + BOTTOM + (index + 0.5) * ROW
        colour, marker, line = _ROLES[series.role]
        sheet.mark(11, row, colour, marker, line=line)
        sheet.write(series.name, 22, row)
        for place in places if rows else ():
            text = figures.format_figure(series.values[place], chart.unit)
            center = LEFT + width * (place + 0.5) / count
            sheet.write(text, center, row, align="center", size=FONT if count <= 6 else 7.5)
    return sheet.drawing


def _draw_series(sheet: _Sheet, axes: Axes, series: Series) -> None:
    factor = sheet.chart.unit.factor
    colour, marker, line = _ROLES[series.role]
    shade = choose(colour, sheet.theme)
    values = _convert_values(series.values, factor)
    places = list(range(len(values)))
    if series.low and series.high:
        low, high = (_convert_values(ends, factor) for ends in (series.low, series.high))
        if series.role == "before":
            _draw_band(axes, low, high, shade)
        else:
            axes.vlines(places, low, high, color=shade, linewidth=1.2)
    if series.role == "now":
        for place, dots in enumerate(series.dots):
            axes.plot(
                [place] * len(dots),
                [dot * factor for dot in dots],
                linestyle="none",
                marker=".",
                markersize=5,
                color=shade,
                alpha=0.4,
                markeredgewidth=0,
            )
    axes.plot(places, values, **sheet.style(colour, marker, line))


def _draw_band(axes: Axes, low: list[float], high: list[float], shade: str) -> None:
    """The interval of a baseline; of a single place as wide as a bar."""
    places: list[float] = list(range(len(low)))
    if len(low) == 1:
        places, low, high = [-0.25, 0.25], low * 2, high * 2
    axes.fill_between(places, low, high, color=shade, alpha=0.22, linewidth=0)


def _draw_history(chart: Chart, theme: Theme, top: float) -> Drawing:
    count = len(chart.places)
    height = top + HEIGHT_OF_AXES + 2 * BOTTOM + len(chart.series) * ROW + 6
    sheet = _Sheet(chart, theme, height, titled=top == TITLED)
    left = 44
    axes = sheet.add_axes(left, top, WIDTH - left - RIGHT, HEIGHT_OF_AXES)
    factor = chart.unit.factor
    for index, series in enumerate(chart.series):
        style = sheet.style(SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)], "-")
        if series.band:
            low, high = (end * factor for end in series.band)
            axes.axhspan(low, high, color=style["color"], alpha=0.2, linewidth=0)
        places = [place for place in range(count) if series.values[place] is not None]
        axes.plot(
            places, _convert_values([series.values[place] for place in places], factor), **style
        )
    _set_limits(axes, chart, theme)
    axes.set_xlim(-0.5, count - 0.5)
    ticks = _pick_places(count, 3)
    axes.set_xticks(ticks)
    axes.set_xticklabels([chart.places[place] for place in ticks])
    _keep_labels_inside(axes, count)
    below = top + HEIGHT_OF_AXES + BOTTOM
    sheet.write(chart.axis, WIDTH - RIGHT, below + 6, colour="muted", align="right")
    for index, series in enumerate(chart.series):
        line = below + BOTTOM + (index + 0.5) * ROW
        sheet.mark(11, line, SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)])
        sheet.write(series.name, 22, line)
        sheet.write("".join(map(str, series.notes)), 112, line, size=9)
    return sheet.drawing


def _keep_labels_inside(axes: Axes, count: int) -> None:
    """The first label begins, and the last ends, where the axis does: dates are wide."""
    labels = axes.get_xticklabels()
    if count > 1:
        labels[0].set_horizontalalignment("left")
        labels[-1].set_horizontalalignment("right")


def _draw_hosts(chart: Chart, theme: Theme, top: float) -> Drawing:
    count = len(chart.places)
    legend, top = top, top + ROW
    height = top + count * HOST_ROW + BOTTOM + 6
    sheet = _Sheet(chart, theme, height, titled=legend == TITLED)
    axes = sheet.add_axes(NAMES, top, WIDTH - NAMES - FIGURES, count * HOST_ROW)
    factor = chart.unit.factor
    sheet.write(chart.axis, 4, legend, colour="muted")
    sheet.write("most", WIDTH - 4, legend, colour="muted", align="right")
    step = (WIDTH - NAMES - FIGURES) / max(4, len(chart.series))
    for index, series in enumerate(chart.series):
        colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
        sheet.mark(NAMES + index * step, legend, colour, marker, line="none")
        sheet.write(series.name, NAMES + index * step + 8, legend)
        style = sheet.style(colour, marker, "none")
        axes.plot(_convert_values(series.values, factor), range(count), **style)
    for place in range(count):
        known = [v for series in chart.series if (v := series.values[place]) is not None]
        if known:
            axes.hlines(
                place,
                min(known) * factor,
                max(known) * factor,
                color=choose("grid", theme),
                linewidth=2,
                zorder=1,
            )
        line = top + (place + 0.5) * HOST_ROW
        text = figures.format_figure(max(known), chart.unit) if known else figures.MISSING
        sheet.write(text, WIDTH - 4, line, align="right")
        sheet.write(shorten(chart.places[place], 16), 4, line)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks([])
    _set_limits(axes, chart, theme, horizontal=True)
    return sheet.drawing


def _set_limits(axes: Axes, chart: Chart, theme: Theme, *, horizontal: bool = False) -> None:
    """From nothing to a little more than the greatest: lengths then compare as figures do."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ends = [
        value * chart.unit.factor
        for series in chart.series
        for value in (
            *series.values,
            *series.high,
            *(dot for dots in series.dots for dot in dots),
            *(series.band or ()),
        )
        if value is not None
    ]
    greatest = max(ends, default=0.0) or 1.0
    axis = axes.xaxis if horizontal else axes.yaxis
    (axes.set_xlim if horizontal else axes.set_ylim)(0, greatest * 1.08)
    axis.set_major_locator(MaxNLocator(4 if horizontal else 5, min_n_ticks=2))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.grid(visible=True, color=choose("grid", theme), linewidth=0.8)


def _convert_values(values: Any, factor: float) -> list[float]:
    return [float("nan") if value is None else value * factor for value in values]


def _pick_places(count: int, most: int) -> list[int]:
    """Some of many places, evenly, the first and last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def _convert(written: str, chart: Chart) -> str:
    """matplotlib's SVG as a part of a page: without styles of its own, ids that clash, or metadata.

    Styles become attributes, so that the page can forbid all styles but its own sheet; colours
    become classes, so that they follow the reader's preference.
    """
    root = ElementTree.fromstring(written)  # noqa: S314  written in this process
    names = {pair[0]: name for name, pair in COLOURS.items()}
    references = set(_REFERENCE.findall(" ".join(_list_references(root))))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}metadata" or child.find(f"{_SVG}style") is not None:
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.text = (element.text or "").strip() if element.tag in ("text", "tspan") else None
        element.tail = None
        _convert_attributes(element, chart.key, references, names)
    _unwrap(root)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {
        "xmlns": _SVG[1:-1],
        "role": "img",
        "aria-labelledby": f"{chart.key}-title",
        "stroke-linejoin": "round",
        "font-size": str(FONT),
    }
    title = ElementTree.Element("title", {"id": f"{chart.key}-title"})
    title.text = f"{chart.subtitle}: {chart.alternative}"
    root.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode")


def _list_references(root: ElementTree.Element) -> Iterator[str]:
    for element in root.iter():
        yield element.get(_LINK, "")
        yield element.get("clip-path", "")


def _convert_attributes(
    element: ElementTree.Element, key: str, references: set[str], names: dict[str, str]
) -> None:
    attributes = dict(element.attrib)
    element.attrib.clear()
    classes = []
    for part in attributes.pop("style", "").split(";"):
        name, _, value = (text.strip() for text in part.partition(":"))
        if name in ("fill", "stroke") and value in names:
            classes.append(f"{name[0]}-{names[value]}")
        # The page's own fonts are used.
        elif name and name != "font-family":
            attributes[name] = value.removesuffix("px") if name == "font-size" else value
    if classes:
        element.set("class", " ".join(classes))
    for name, value in attributes.items():
        if name == "id" and value not in references:
            continue
        if name == "transform" and value.startswith("rotate(-0 "):
            continue
        if name == _LINK:
            name = "href"
        if name in ("href", "clip-path"):
            value = value.replace("#", f"#{key}-")
        elif name == "id":
            value = f"{key}-{value}"
        elif name != "class":
            value = _PLACES.sub(lambda match: f"{float(match[0]):.2f}", value)
            value = _SPACE.sub(" ", value).strip()
        element.set(name, value)


def _unwrap(element: ElementTree.Element) -> None:
    """Take out groups that group nothing."""
    children = []
    for child in element:
        _unwrap(child)
        if child.tag == "g" and not child.attrib:
            children += list(child)
        else:
            children.append(child)
    element[:] = children
