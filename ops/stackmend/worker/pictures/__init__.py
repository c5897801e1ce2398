"""Pictures of a benchmark: a page, PNG, and a table for a terminal, all with the same figures."""

from stackmend.worker.benchmark.reader import ResultError, read, read_all, read_readable
from stackmend.worker.pictures.charts import ExtraMissingError
from stackmend.worker.pictures.files import write_page, write_pages, write_pictures
from stackmend.worker.pictures.page import render_fragment
from stackmend.worker.pictures.table import show

__all__ = [
    "ExtraMissingError",
    "ResultError",
    "read",
    "read_all",
    "read_readable",
    "render_fragment",
    "show",
    "write_page",
    "write_pages",
    "write_pictures",
]
