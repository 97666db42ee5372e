"""Read the IDX files of MNIST and of the sets that share its form."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from pmi_cl.errors import UserError

if TYPE_CHECKING:
    import numpy

BYTES = 8  # the code of unsigned bytes, the only type in these sets


def read_idx(path: Path) -> numpy.ndarray:
    """Return the array in a compressed IDX file: uint8, of any number of dimensions.

    An IDX file has two zeros, a code of the type, the number of dimensions, the length of each as
    32 bits (big-endian), and then the values.

    Raises:
        UserError: the file has another form.
    """
    import numpy

    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is no whole gzip file ({error}): delete it, and the next run fetches it") from error
    head = 4 + 4 * content[3] if content[:3] == bytes((0, 0, BYTES)) and len(content) > 3 else 0
    shape = tuple(numpy.frombuffer(content[4:head], ">u4").tolist()) if 4 < head <= len(content) else ()
    if not shape or len(content) != head + math.prod(shape):
        raise UserError(f"{path} is no IDX file of bytes: delete it, and the next run fetches it")
    return numpy.frombuffer(content, numpy.uint8, offset=head).reshape(shape).copy()  # writable, as torch wants it
