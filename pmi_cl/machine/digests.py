"""Compute the digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any

BLOCK = 1 << 20  # bytes read at a time


def update_hasher(hasher: Any, file: IO[bytes]) -> None:
    """Update a :mod:`hashlib` hasher with the rest of an open file."""
    while block := file.read(BLOCK):
        hasher.update(block)


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file. Raise OSError if it cannot be read."""
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb", buffering=0) as file:
        update_hasher(hasher, file)
    return hasher.hexdigest()
