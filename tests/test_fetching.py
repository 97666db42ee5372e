"""Test downloads from a real server on this machine, and archives that are not to be trusted.

Downloads are whole, broken off, resumed or damaged.
"""

from __future__ import annotations

import hashlib
import io
import random
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pmi_cl.datasets.files.fetching import fetch
from pmi_cl.datasets.files.unpacking import unpack
from pmi_cl.errors import UserError

CONTENT = bytes(range(256)) * 12000  # 3 MB: several blocks
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server(ThreadingHTTPServer):
    """A server of CONTENT at any path but /missing.

    Attributes:
        ranges: whether it honours the Range header.
        breaks: after how many bytes it closes the first, second ... connection. Connections
            beyond the
            list are whole.
        asked: the Range header of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = True
        self.breaks: list[int] = []
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        if self.path == "/missing":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = start + self.server.breaks.pop(0) if self.server.breaks else None
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *args: object) -> None:
        """The tests look at ``asked`` instead."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_file_arrives_whole_with_its_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "new" / "folder" / "data.bin"
    fetch(server.url, target, DIGEST, progress=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["data.bin"]
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT)
    fetch(server.url, tmp_path / "data.bin", DIGEST)
    assert server.asked == []


def test_what_is_there_and_damaged_is_named_and_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"data\.bin is damaged .*delete it"):
        fetch(server.url, tmp_path / "data.bin", DIGEST)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT[:-1]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_resumed(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.ranges, server.breaks = ranges, [1_500_000]
    fetch(server.url, tmp_path / "data.bin", DIGEST)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1500000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_later_call_goes_on_where_an_earlier_one_stopped(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.ranges, server.breaks = ranges, [1000]
    with pytest.raises(UserError, match="broke after 1000 of 3072000 bytes"):
        fetch(server.url, tmp_path / "data.bin", DIGEST, attempts=1)
    assert not (tmp_path / "data.bin").exists()
    fetch(server.url, tmp_path / "data.bin", DIGEST, attempts=1)
    assert server.asked == [None, "bytes=1000-"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_put_in_place(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    fetch(server.url, tmp_path / "data.bin", DIGEST)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert not (tmp_path / "data.bin.part").exists()


@pytest.mark.parametrize("left", [b"", b"from another file altogether"])
def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "data.bin.part").write_bytes(left)
    wanted = DIGEST if left else "md5:" + "0" * 32
    with pytest.raises(UserError, match=r"wrong checksum .*put it at .*data\.bin"):
        fetch(server.url, tmp_path / "data.bin", wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_server_lacks(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("data.bin", "missing")
    with pytest.raises(UserError, match="the server says 404"):
        fetch(url, tmp_path / "data.bin", DIGEST)
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_server_the_error_comes_soon_and_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/data.bin"  # bound but not listening: refused
        target = tmp_path / "new" / "data.bin"
        began = time.monotonic()
        with pytest.raises(UserError) as caught:
            fetch(url, target, DIGEST)
    assert time.monotonic() - began < 2
    assert f"download {url} by hand and put it at {target}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not target.parent.exists()


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers
        began = time.monotonic()
        with pytest.raises(UserError, match=r"timed out|no answer"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/data.bin", tmp_path / "data.bin", DIGEST, timeout=0.2)
        assert time.monotonic() - began < 2


def test_several_calls_at_once_download_once(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch, args=(server.url, tmp_path / "data.bin", DIGEST)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.asked == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]


def test_a_target_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write"):
        fetch(server.url, tmp_path / "file" / "data.bin", DIGEST)


def archive(path: Path, **members: bytes | tarfile.TarInfo) -> Path:
    """Return a tar.gz with ordinary files (bytes) and anything else (TarInfo).

    Two underscores in a name stand for a slash.
    """
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name.replace("__", "/"))
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def special(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_only_the_named_members_are_unpacked(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.tar.gz", set=special("set", tarfile.DIRTYPE), set__train=b"1", set__test=b"2", set__other=b"3"
    )
    unpack(path, tmp_path, ["set/train", "set/test"])
    assert {file.name: file.read_bytes() for file in (tmp_path / "set").iterdir()} == {"train": b"1", "test": b"2"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tar.gz", "set"]


@pytest.mark.parametrize(
    "evil",
    [
        special("../outside"),
        special("set/../../outside"),
        special("/tmp/outside"),
        special("C:\\outside"),
        special("..\\outside"),
        special("set/train", tarfile.SYMTYPE, "/etc/passwd"),
        special("set/link", tarfile.LNKTYPE, "../outside"),
        special("set/pipe", tarfile.FIFOTYPE),
        special("set/device", tarfile.CHRTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.type.decode()}",
)
@pytest.mark.parametrize("first", [True, False])
def test_an_archive_with_an_unsafe_member_is_not_unpacked(tmp_path: Path, evil: tarfile.TarInfo, first: bool) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    members = {"evil": evil, "set__train": b"1"} if first else {"set__train": b"1", "evil": evil}
    path = archive(tmp_path / "a.tar.gz", **members)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="was not unpacked"):
        unpack(path, folder, ["set/train"])
    assert list(folder.iterdir()) == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tar.gz", "inner"]


def test_an_archive_that_lacks_a_member(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", set__train=b"1")
    with pytest.raises(UserError, match=r"lacks set/test: delete it"):
        unpack(path, tmp_path, ["set/train", "set/test"])
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("keep", [0, 20, 5000])
def test_a_damaged_archive(tmp_path: Path, keep: int) -> None:
    path = archive(tmp_path / "a.tar.gz", set__train=random.Random(0).randbytes(20_000))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"cannot unpack|lacks"):
        unpack(path, tmp_path, ["set/train"])
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar.gz"]
