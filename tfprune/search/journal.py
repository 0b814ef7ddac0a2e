"""The journal of a search: what was asked of the oracle and told to it, one line of JSON each."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file of events that survives a kill at any moment: a line is whole, or it is not there."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.events: list[dict[str, Any]] = []
        if self.path.exists():
            content = self.path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                os.truncate(self.path, len(whole))
            self.events = [json.loads(line) for line in whole.splitlines()]

    def append(self, **event: Any) -> None:
        """Write an event to the disk before anything builds on it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            stream.write(json.dumps(event).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.events.append(event)
