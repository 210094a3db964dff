"""The curves of a run as TensorBoard reads them."""

from __future__ import annotations

import io
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

NAME = re.compile(r"events\.out\.tfevents\.(\d+)\..+")


class Curves:
    """A file of events, behind those that are in the folder; every line is in it when `add` returns.

    TensorBoard reads a folder's files in the order of the seconds in their names, so a new one has later ones than all
    others, wherever the clock is. step: from which on what older files hold is to be forgotten. Raises OSError, as
    `add` does, also where the file is gone.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder.mkdir(exist_ok=True)
        there = [int(name[1]) for path in folder.iterdir() if (name := NAME.fullmatch(path.name))]
        seconds = max(int(time.time()), max(there, default=-1) + 1)
        self.path = folder / f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}.{os.getpid()}"
        self.path.touch(exist_ok=False)
        self._append(
            {"file_version": "brain.Event:2"}, {"step": step, "session_log": SessionLog(status=SessionLog.START)}
        )

    def add(self, line: dict[str, Any]) -> None:
        """The numbers of a log line, by their names."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = {name: v for name, v in line.items() if name != "step" and isinstance(v, (int, float))}
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._append({"step": line["step"], "summary": Summary(value=values)})

    def _append(self, *events: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = io.BytesIO()
        for event in events:
            RecordWriter(records).write(Event(wall_time=time.time(), **event).SerializeToString())
        with self.path.open("r+b") as file:  # opened anew, as what is deleted takes writes for ever
            file.seek(0, os.SEEK_END)
            file.write(records.getvalue())
