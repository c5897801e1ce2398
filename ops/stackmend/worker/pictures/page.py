"""The page: one file that needs nothing else, runs nothing, and fetches nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from jinja2 import Environment
from markupsafe import Markup

from stackmend.pages import Fragment, make_environment, make_policy, make_style, read
from stackmend.worker.benchmark.state import Result
from stackmend.worker.figures import Figure
from stackmend.worker.pictures.arrange import build_content
from stackmend.worker.pictures.charts import ExtraMissingError, check_extra, draw_svg
from stackmend.worker.pictures.content import Block, Chart, Content, Link, Note, Section

#: Measurements up to which all are unfolded on a page that is of something else.
MOST_OPEN_BESIDE = 2


def render(results: Iterable[Result]) -> str:
    """Results as a page; equal results make equal pages.

    :param results: of one or more hosts.
    :raises ExtraMissingError: matplotlib is not installed.

    Example:
        >>> Path("benchmark.html").write_text(render(read_all([Path("ai1.json")])))
    """
    return render_content(build_content(results))


def render_content(content: Content) -> str:
    """The same of results that are arranged already.

    :raises ExtraMissingError: matplotlib is not installed.
    """
    check_extra()
    style = make_style(read(__package__, "page.css"))
    return (
        _make_environment()
        .get_template("page.html.jinja")
        .render(
            content=content,
            policy=make_policy(style),
            style=Markup(style),  # noqa: S704  our own file
        )
    )


def render_fragment(results: Iterable[Result]) -> Fragment:
    """Results as a part of another page: a section of each host; without matplotlib, its tables.

    :param results: of one or more hosts.

    Example:
        >>> page.render(record, before, [render_fragment(read_all([Path("ai1.json")]))])
    """
    content = build_content(results)
    folded = len(content.sections) > MOST_OPEN_BESIDE
    content = replace(
        content, sections=tuple(replace(section, folded=folded) for section in content.sections)
    )
    try:
        check_extra()
    except ExtraMissingError as error:
        content = _leave_out_charts(content, str(error))
    template = _make_environment().get_template("content.html.jinja")
    body = template.make_module().show_content(content, "Benchmark: ")  # type: ignore[attr-defined]
    return Fragment(body, read(__package__, "page.css"))


def _leave_out_charts(content: Content, reason: str) -> Content:
    def strip(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        return tuple(replace(block, chart=None) for block in blocks)

    def note(section: Section) -> Section:
        notes = (*section.notes, Note(f"without pictures: {reason}"))
        return replace(section, blocks=strip(section.blocks), notes=notes)

    return replace(content, fleet=strip(content.fleet), sections=tuple(map(note, content.sections)))


def _make_environment() -> Environment:
    environment = make_environment(__package__)
    environment.filters |= {"draw": _draw, "exact": repr}
    environment.tests |= {
        "figure": lambda value: isinstance(value, Figure),
        "link": lambda value: isinstance(value, Link),
    }
    return environment


def _draw(chart: Chart) -> Markup:
    return Markup(draw_svg(chart))  # noqa: S704  serialised from elements, which escapes all text
