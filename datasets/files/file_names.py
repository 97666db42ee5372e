"""Hash the names of files, in any encoding, and read small text files of data sets."""

from __future__ import annotations

import codecs
from pathlib import Path

from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import printable


def name_bytes(name: str | Path) -> bytes:
    """Return the bytes of a name as the disk has them."""
    return str(name).encode("utf-8", "surrogateescape")


def read_text(path: Path, strict: bool = True) -> str:
    """Return the content of a text file in UTF-8, or in UTF-16 with a byte order mark.

    Args:
        path: the file.
        strict: refuse a file in another encoding. False: replace the bytes that are not UTF-8.

    Raises:
        UserError: the file has another encoding.
    """
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig", "strict" if strict else "replace")
    except UnicodeDecodeError as error:
        raise UserError(f"{printable(path)} is no text in UTF-8: save it in that encoding, or get it again") from error
