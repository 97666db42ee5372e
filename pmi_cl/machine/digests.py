"""The digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any

BLOCK = 1 << 20  # bytes read at a time


def feed(hasher: Any, file: IO[bytes]) -> None:
    """Shows a hasher of :mod:`hashlib` what is left of a file."""
    while block := file.read(BLOCK):
        hasher.update(block)


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """The file's digest, in hexadecimal. Raises OSError where it cannot be read."""
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb", buffering=0) as file:
        feed(hasher, file)
    return hasher.hexdigest()
