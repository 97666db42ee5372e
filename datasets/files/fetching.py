"""Download files: resume, check the digest, and never leave half a file under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any

from pmi_cl.errors import UserError
from pmi_cl.machine.digests import BLOCK, digest_of, update_hasher
from pmi_cl.machine.web import send_request

ByteProgress = Callable[[int, int], None]  # called with (bytes so far, total bytes)


def fetch(
    url: str,
    target: Path,
    digest: str,
    *,
    timeout: float = 5.0,
    attempts: int = 3,
    progress: ByteProgress | None = None,
) -> None:
    """Download ``url`` to ``target`` unless the file exists.

    A call resumes what an interrupted call left in ``<target>.part``. Calls from several processes
    for one target take turns, so that only the first one downloads.

    Args:
        digest: the digest that the file must have, "md5:<hex>" or "sha256:<hex>".
        timeout: seconds without data after which a connection counts as broken. The server must
            respond within twice this time.
        attempts: the most connections. Another one is made only if the one before brought data.
        progress: called after each block if the server gives the size.

    Raises:
        UserError: no network, no such file on the server, a wrong checksum, or a full disk. The
            message says what to download by hand and where to put it. Without a network nothing is
            left on the disk.
    """
    if target.exists():
        check_digest(target, digest, f"delete it to download {url} again")
        return
    by_hand = f"try again, or download {url} by hand and put it at {target}"
    with part_file(target) as part:
        if target.exists():  # another process has downloaded it meanwhile
            return
        found = _download(url, part, digest.partition(":")[0], timeout, attempts, progress, by_hand)
        path = Path(part.name)
        if found != digest:
            path.unlink()
            raise UserError(f"{url} came with a wrong checksum ({found}, not {digest}): {by_hand}")
        with disk_errors(path):
            path.replace(target)


def check_digest(path: Path, digest: str, remedy: str) -> None:
    """Raise UserError if the digest of a file differs from "md5:<hex>" or "sha256:<hex>".

    Args:
        remedy: the end of the message.
    """
    algorithm = digest.partition(":")[0]
    if (found := f"{algorithm}:{digest_of(path, algorithm)}") != digest:
        raise UserError(f"{path} is damaged ({found}, not {digest}): {remedy}")


@contextlib.contextmanager
def part_file(target: Path, doing: str = "downloads") -> Iterator[IO[bytes]]:
    """Open ``<target>.part`` to read and append, locked against other processes.

    The file, and folders that it needed, are removed again if it is empty at the end.

    Args:
        doing: the verb for the line that is printed while another process has the lock.
    """
    folders = [folder for folder in target.parents if not folder.exists()]
    path = target.with_name(target.name + ".part")
    file = _locked(path, f"{doing} {target.name}")
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            if os.fstat(file.fileno()).st_size == 0:
                path.unlink()
            for folder in folders:
                folder.rmdir()  # fails where the folder is not empty, as it should
        with contextlib.suppress(OSError):  # a failed write fails again here
            file.close()


def _locked(path: Path, doing: str) -> IO[bytes]:
    """Open and lock a file. Create it again if the process that held the lock has removed it."""
    while True:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b")
        _lock(file, doing)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def _lock(file: IO[bytes], doing: str) -> None:
    """Wait for the lock of other processes. The system frees the lock of a process that dies."""
    try:
        import fcntl
    except ImportError:
        # Windows has no such lock. Two runs may spoil each other's file, which is checked before
        # use.
        return
    with contextlib.suppress(OSError):  # a file system without locks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that {doing}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)


def _download(
    url: str,
    part: IO[bytes],
    algorithm: str,
    timeout: float,
    attempts: int,
    progress: ByteProgress | None,
    by_hand: str,
) -> str:
    """Complete ``part`` over at most ``attempts`` connections, and return its digest."""
    for attempt in range(1, attempts + 1):
        before = _size(part)
        try:
            return _fetch_rest(url, part, algorithm, timeout, progress)
        except urllib.error.HTTPError as error:
            raise UserError(
                f"cannot download {url} (the server says {error.code} {error.reason}): {by_hand}"
            ) from error
        except (OSError, HTTPException) as error:
            if attempt == attempts or _size(part) <= before:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                raise UserError(f"cannot download {url} ({reason}): {by_hand}") from error
    raise UserError(f"cannot download {url}: {by_hand}")


def _fetch_rest(url: str, part: IO[bytes], algorithm: str, timeout: float, progress: ByteProgress | None) -> str:
    """Append what ``part`` lacks over one connection, and return the digest of the whole file."""
    have = _size(part)
    headers = {"User-Agent": "pmi-cl", **({"Range": f"bytes={have}-"} if have else {})}
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    try:
        response = send_request(urllib.request.Request(url, headers=headers), timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.seek(0)  # 416: the file has no bytes beyond those in part
        update_hasher(hasher, part)
        return f"{algorithm}:{hasher.hexdigest()}"
    with response:
        if response.status == 206 and (response.headers["Content-Range"] or "").startswith(f"bytes {have}-"):
            part.seek(0)
            update_hasher(hasher, part)
        else:  # the server sends the file from its start
            part.truncate(0)
            have = 0
        _append(response, part, hasher, have, progress)
    return f"{algorithm}:{hasher.hexdigest()}"


def _append(response: HTTPResponse, part: IO[bytes], hasher: Any, done: int, progress: ByteProgress | None) -> None:
    """Append a response to ``part``, of which ``done`` bytes are there."""
    length = response.headers["Content-Length"]
    total = done + int(length) if length else None
    while block := response.read(BLOCK):
        with disk_errors(Path(part.name)):
            part.write(block)
            part.flush()
        hasher.update(block)
        done += len(block)
        if progress and total:
            progress(done, total)
    with disk_errors(Path(part.name)):
        os.fsync(part.fileno())
    if total is not None and done < total:
        raise ConnectionError(f"the connection broke after {done} of {total} bytes")


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of writing below ``--base_path`` into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): make room, or choose another --base_path"
        ) from error
