"""Asks servers with a limit to the time until they answer."""

from __future__ import annotations

import queue
import threading
import urllib.request
from http.client import HTTPResponse


def answer(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    """The server's answer, or an error of urllib's within twice the timeout (in seconds).

    In a thread, because urllib's timeout covers neither the look-up of a name nor a host with several addresses.

    Raises:
        TimeoutError: there was none by then.
    """
    answers: queue.Queue[HTTPResponse | Exception] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=timeout))
        except Exception as error:  # raised again below, in the caller's thread
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = answers.get(timeout=2 * timeout)
    except queue.Empty:
        raise TimeoutError(f"no answer within {2 * timeout:g} s") from None
    if isinstance(found, Exception):
        raise found
    return found
