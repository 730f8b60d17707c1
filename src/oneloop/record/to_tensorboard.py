"""TensorBoard's event files, in RUN/tensorboard, by its own writer, which needs neither torch nor tensorflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import time

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.tensor_pb2 import TensorProto  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.types_pb2 import DT_STRING  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from oneloop.record.sinks import Opening


class TensorBoard:
    """Implements `oneloop.record.sinks.Sink`."""

    def __init__(self, writer: EventFileWriter) -> None:
        self._writer = writer

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        self._write(done, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def event(self, done: int, code: str, text: str) -> None:
        self._write(done, [_text(f"alerts/{code}", text)])

    def close(self, *, failed: bool) -> None:
        self._writer.close()

    def _write(self, done: int, values: list[Summary.Value]) -> None:
        self._writer.add_event(Event(wall_time=time(), step=done, summary=Summary(value=values)))
        self._writer.flush()  # steps are seconds apart: nothing is saved by waiting, and a killed run has its last one


def open_sink(opening: Opening) -> TensorBoard:
    writer = EventFileWriter(str(opening.folder / "tensorboard"))
    if opening.done:
        # the reader drops what an earlier file has from this step on: those steps are repeated
        begin = SessionLog(status=SessionLog.START)
        writer.add_event(Event(wall_time=time(), step=opening.done + 1, session_log=begin))
    sink = TensorBoard(writer)
    sink._write(opening.done, [_text("config", f"```json\n{json.dumps(dict(opening.config), indent=1)}\n```")])
    return sink


def _text(tag: str, text: str) -> Summary.Value:
    """A value of the text plugin, which reads Markdown."""
    tensor = TensorProto(
        dtype=DT_STRING,
        string_val=[text.encode("utf-8", "backslashreplace")],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
