"""Rows of any source, checked and in one of four forms, before anything is loaded or trained."""

from oneloop.data.kinds import EXAMPLES, Kind, Reading, Row
from oneloop.data.loaded import Loaded, Rows
from oneloop.data.sources import columns_of, from_rows, kinds_of, open_data, python_table
from oneloop.data.tables import Table, content

__all__ = [
    "EXAMPLES", "Kind", "Loaded", "Reading", "Row", "Rows", "Table", "columns_of", "content", "from_rows", "kinds_of",
    "open_data", "python_table",
]  # fmt: skip
