"""Write PNG files with 16 bits for each channel, of all colour types, which Pillow does not."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels


def write_png16(path: Path, values: Any, transparent: bytes = b"") -> Path:
    """Write an array (h, w, c) of values up to 65535. Return the path.

    ``transparent`` is the content of the chunk ``tRNS``.
    """
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(_chunk(kind, data) for kind, data in chunks if data or kind != b"tRNS")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
