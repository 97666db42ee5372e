"""Send requests to servers with a time limit."""

from __future__ import annotations

import queue
import threading
import urllib.request
from http.client import HTTPResponse


def send_request(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    """Return the response of the server. Raise any error of urllib.

    The request runs in a thread, because urllib's timeout covers neither the look-up of a name nor
    a host with several addresses.

    Args:
        timeout: seconds, for urllib. The function returns or raises within twice this time.

    Raises:
        TimeoutError: no response within twice the timeout.
    """
    responses: queue.Queue[HTTPResponse | Exception] = queue.Queue()

    def work() -> None:
        try:
            responses.put(urllib.request.urlopen(request, timeout=timeout))
        except Exception as error:  # raised again below, in the caller's thread
            responses.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        response = responses.get(timeout=2 * timeout)
    except queue.Empty:
        raise TimeoutError(f"no answer within {2 * timeout:g} s") from None
    if isinstance(response, Exception):
        raise response
    return response
