"""Python programs in processes of their own that need not import torch again.

A server (``forking_server.py``) has imported the libraries; it forks a process for each program.
Such a process starts in a few hundredths of a second. It differs from a process of its own in what
is decided when the interpreter or a library starts: options of the interpreter, the encoding of
the streams, and the environment that torch and open_clip read at import. What tests that, takes
:mod:`subprocess`.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

SERVER = Path(__file__).with_name("forking_server.py")
ROOT = SERVER.parents[2]
FORKS = sys.platform == "linux"  # elsewhere a fork of a process with torch in it is not safe
# As it is before any test changes it; a process with more than one thread must not fork.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@functools.cache
def _server() -> socket.socket:
    """Start the server of this process, and return the socket that it listens to."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(SERVER), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env=ENVIRONMENT,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class ForkedProcess:
    """A program that runs, with what tests need of :class:`subprocess.Popen`.

    Attributes:
        pid: the number of its process.
        returncode: how it ended, None as long as nobody knows.
        stdout, stderr: the ends of its pipes, None for what goes into a file.
    """

    def __init__(
        self, words: Sequence[str], cwd: Path, env: Mapping[str, str], streams: Sequence[int | IO[bytes]]
    ) -> None:
        self.returncode: int | None = None
        self._reports, theirs = socket.socketpair()
        pipes = [os.pipe() if stream == subprocess.PIPE else None for stream in streams]
        self.stdout, self.stderr = (os.fdopen(pipe[0], "rb") if pipe else None for pipe in pipes)
        written = [pipe[1] if pipe else stream for pipe, stream in zip(pipes, streams, strict=True)]
        with theirs, Path(os.devnull).open("rb") as nothing:
            passed = [each if isinstance(each, int) else each.fileno() for each in (theirs, nothing, *written)]
            socket.send_fds(_server(), [b"."], passed)
        for pipe in filter(None, pipes):
            os.close(pipe[1])
        request = {"words": list(words), "cwd": str(cwd), "env": dict(env)}
        self._reports.sendall(json.dumps(request).encode() + b"\n")
        self.pid = self._report()

    def _report(self) -> int:
        """Wait for the next number that the server's process sends: the pid, the exit code."""
        (number,) = struct.unpack("i", self._reports.recv(4, socket.MSG_WAITALL))
        return int(number)

    def poll(self) -> int | None:
        """Return how the program ended, None if it has not."""
        if self.returncode is None and select.select([self._reports], [], [], 0)[0]:
            self.returncode = self._report()
        return self.returncode

    def wait(self) -> int:
        """Wait for the end of the program. Return its exit code, negative for a signal."""
        if self.returncode is None:
            self.returncode = self._report()
        return self.returncode

    def communicate(self) -> tuple[bytes, bytes]:
        """Read both pipes to their ends, and wait."""
        with ThreadPoolExecutor(1) as beside:
            errors = beside.submit(self.stderr.read) if self.stderr else None
            out = self.stdout.read() if self.stdout else b""
        self.wait()
        return out, errors.result() if errors else b""

    def send_signal(self, number: int) -> None:
        """Send the program a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the program at once."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> ForkedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in filter(None, (self.stdout, self.stderr)):
            stream.close()
        self.wait()
        self._reports.close()


Process = ForkedProcess | subprocess.Popen[bytes]


def start_python(words: Sequence[str], stdout: int = subprocess.PIPE) -> Process:
    """Start ``python WORDS`` in the checkout, with a pipe for stderr."""
    if FORKS:
        return ForkedProcess(words, ROOT, os.environ, [stdout, subprocess.PIPE])
    return subprocess.Popen([sys.executable, *words], stdout=stdout, stderr=subprocess.PIPE, cwd=ROOT)


def run_python(
    words: Sequence[str], cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python WORDS`` to its end. Return its exit code and what it wrote, as text."""
    if not FORKS:
        return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    with TemporaryFile() as out, TemporaryFile() as errors:
        with ForkedProcess(words, cwd, os.environ if env is None else env, [out, errors]) as process:
            code = process.wait()
        said = []
        for file in (out, errors):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(list(words), code, *said)
