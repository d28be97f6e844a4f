"""Programs of ours in processes of their own, which do what takes long beside whatever else there is to do."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

# The folder that a program starts in is on Python's path: a `json.py` that lies there must not be imported.
_START = (
    "import sys; sys.path[:1] = [] if sys.path[0] == '' else sys.path[:1]; "
    "import runpy; runpy.run_path(sys.argv[1], run_name='__main__')"
)


class Worker:
    """Runs a Python file, which starts at once, reads lines and answers with lines and bytes, until it is closed."""

    def __init__(self, program: str) -> None:
        """Start the file `program`."""
        pipe = subprocess.PIPE
        # A pipe that nobody reads would be full one day, and whoever complains into it would wait for ever.
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        # In a session of its own, Ctrl-C reaches this process, which then ends the other.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, program],
            stdin=pipe,
            stdout=pipe,
            stderr=self._complaints,
            start_new_session=True,
        )
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()
        self._feeder = Thread(target=self._feed, daemon=True)
        self._feeder.start()

    def tell(self, line: bytes) -> None:
        """Send a line; who tells need not wait for a worker that is busy."""
        self._waiting.put(line + b"\n")

    def answer(self) -> bytes:
        """Return the next line of the worker, as soon as it is there; nothing where it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def content(self, size: int) -> bytes:
        """Return so many bytes of the worker; fewer where it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.read(size)

    def last_words(self) -> str:
        """Return the last line that a worker which has ended complained of; nothing where it ended without a word."""
        self._process.wait()
        self._complaints.seek(0)
        return "".join(self._complaints.read().decode(errors="replace").strip().splitlines()[-1:])

    def close(self) -> None:
        """End the process at once: what it was asked for is there, or nobody wants it any more."""
        self._waiting.put(None)
        self._process.kill()
        self._process.wait()
        self._feeder.join()
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            with suppress(OSError):  # what was still to be sent has nowhere to go
                if stream is not None:
                    stream.close()

    def _feed(self) -> None:
        assert self._process.stdin is not None
        # Where the worker has ended, who waits for its answer says so.
        with suppress(OSError, ValueError):
            while (line := self._waiting.get()) is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
