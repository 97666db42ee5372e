"""A Python process with the slow libraries imported, which forks one process for each program.

``forked_python.py`` starts it and talks to it.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
N_STREAMS = 3  # stdin, stdout, stderr
Request = dict[str, Any]  # words, cwd, env


def import_libraries() -> list[types.ModuleType]:
    """Import what most commands import, but nothing of this package.

    A program imports the package anew, from the checkout that its own path names.
    """
    sys.path.insert(0, str(ROOT))
    shim = importlib.import_module("pmi_cl.machine.torchvision_shim")
    shim.ensure_torchvision()
    names = ["torch.utils.tensorboard", "torch.fx", "open_clip", "matplotlib.figure", "PIL.Image", "yaml", "tqdm"]
    libraries = [importlib.import_module(name) for name in names]
    for name in [name for name in sys.modules if name.split(".")[0] == "pmi_cl"]:
        del sys.modules[name]
    sys.path.remove(str(ROOT))
    return [shim, *libraries]  # the shim keeps the operators alive that it has declared


def serve(control: socket.socket) -> Request | None:
    """Fork a process for each request. Return the request in that process, and None at the end."""
    waiting: set[int] = set()
    while True:
        message, descriptors = _receive(control)
        waiting -= {pid for pid in waiting if os.waitpid(pid, os.WNOHANG)[0]}
        if not message:
            for pid in waiting:
                os.waitpid(pid, 0)
            return None
        pid = os.fork()
        if pid == 0:
            control.close()
            return _attend(descriptors)
        waiting.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    numbers = array.array("i")
    message, ancillary, _, _ = control.recvmsg(1, socket.CMSG_LEN((N_STREAMS + 1) * numbers.itemsize))
    for _, _, data in ancillary:
        numbers.frombytes(data)
    return message, list(numbers)


def _attend(descriptors: list[int]) -> Request:
    """Fork the program and report its number and how it ended.

    Return the request in the program's process. The reporting process ends here.
    """
    with socket.socket(fileno=descriptors[0]) as reports:
        request: Request = json.loads(reports.makefile("r", encoding="utf-8").readline())
        program = os.fork()
        if program:
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            with contextlib.suppress(BrokenPipeError):
                reports.sendall(struct.pack("i", program))
                status = os.waitpid(program, 0)[1]
                reports.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))
            os._exit(0)
    for stream, descriptor in enumerate(descriptors[1:]):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    return request


def entries_of_the_environment() -> list[str]:
    """Return what PYTHONPATH adds to the path of modules."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [os.path.abspath(entry) for entry in entries if entry]  # noqa: PTH100


def become(request: Request) -> None:
    """Run a program as ``python WORDS`` would.

    WORDS are ``-c CODE``, ``-m MODULE`` or a file, and the program's own words.
    """
    servers = {str(Path(__file__).parent), *entries_of_the_environment()}
    installed = [entry for entry in sys.path if entry not in servers]
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind, *words = request["words"]
    script = kind not in ("-c", "-m")
    first = str(Path(kind).resolve().parent) if script else "" if kind == "-c" else str(Path.cwd())
    sys.path[:] = [first, *entries_of_the_environment(), *installed]
    importlib.invalidate_caches()
    if script:
        sys.argv = [kind, *words]
        runpy.run_path(kind, run_name="__main__")
    elif kind == "-m":
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *words[1:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[0], "<string>", "exec"), vars(sys.modules["__main__"]))


def end(program: Callable[[], None]) -> NoReturn:
    """Run a program, and end the process as Python does, but without taking its objects apart.

    That would copy all of the server's memory, and take half a second.
    """
    code: Any = None
    try:
        program()
    except SystemExit as leaving:
        code = leaving.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks decides when this ends
    kept = import_libraries()
    gc.freeze()  # what is never visited is never copied
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        end(functools.partial(become, asked))
