"""The page: one file that needs nothing else, runs nothing, and fetches nothing."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from stackmend.pages import make_policy
from stackmend.worker.benchmark.state import Result
from stackmend.worker.figures import Figure
from stackmend.worker.pictures import palette
from stackmend.worker.pictures.arrange import build_content
from stackmend.worker.pictures.charts import check_extra, draw_svg
from stackmend.worker.pictures.content import Chart, Content, Link


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
    style = palette.format_css() + _read("page.css")
    return (
        _make_environment()
        .get_template("page.html.jinja")
        .render(
            content=content,
            policy=make_policy(style),
            style=Markup(style),  # noqa: S704  our own file
        )
    )


def _make_environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"draw": _draw, "exact": repr}
    environment.tests |= {
        "figure": lambda value: isinstance(value, Figure),
        "link": lambda value: isinstance(value, Link),
    }
    return environment


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _draw(chart: Chart) -> Markup:
    return Markup(draw_svg(chart))  # noqa: S704  serialised from elements, which escapes all text
