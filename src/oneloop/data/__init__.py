"""Rows of any source, checked and in one of four forms, before anything is loaded or trained."""

from oneloop.data.kinds import EXAMPLES, Kind, Reading, Row
from oneloop.data.loaded import Loaded, Rows
from oneloop.data.sources import from_rows, open_data

__all__ = ["EXAMPLES", "Kind", "Loaded", "Reading", "Row", "Rows", "from_rows", "open_data"]
