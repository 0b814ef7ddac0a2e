"""The journal of a search: what was asked of the oracle and told to it, one line of JSON each."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfprune.errors import InputError

_PATIENCE_SECONDS = 5.0
"""How long an earlier start, killed just now, has to let go."""


class Journal:
    """An append-only file of events that survives a kill at any moment: a line is whole, or it is not there."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.events: list[dict[str, Any]] = []

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Read the events that are there, and keep all others from this journal.

        Raises:
            InputError: when another process has it.
        """
        import fcntl  # not there on Windows, where tfprune's other parts work

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise InputError(
                            f"{self.path.parent} is being searched by another process; wait for it, or stop it"
                        ) from None
                    time.sleep(0.1)
            content = self.path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                os.truncate(self.path, len(whole))
            self.events = [json.loads(line) for line in whole.splitlines()]
            yield

    def append(self, **event: Any) -> None:
        """Write an event to the disk before anything builds on it."""
        with self.path.open("ab") as stream:
            stream.write(json.dumps(event).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.events.append(event)
