"""Hold back what native libraries write past Python's logging."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


@contextmanager
def quiet_stderr() -> Iterator[BinaryIO]:
    """Hold back what is written to file descriptor 2, in the file yielded; show it after all when the block fails.

    Start-up notes of TensorFlow, its converter and the delegates bypass Python's logging and `sys.stderr`.
    """
    try:
        descriptor = os.dup(2)
    except OSError:  # no standard error at all, as under some desktops
        yield io.BytesIO()
        return
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield held
        except BaseException:
            held.seek(0)
            os.write(descriptor, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(descriptor, 2)
            os.close(descriptor)
