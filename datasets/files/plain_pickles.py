"""Read pickles of arrays without running what they may hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

from pmi_cl.errors import UserError


def read_pickle(path: Path) -> dict[bytes, Any]:
    """Return the content of a pickled dictionary. Its keys are bytes, as Python 2 wrote them.

    Raises:
        UserError: the file holds more than plain data.
    """
    with path.open("rb") as file:
        return _ArraysOnly(file).load()


class _ArraysOnly(pickle.Unpickler):
    """Unpickle containers, numbers, bytes and NumPy arrays. Refuse all else: it might run code."""

    def __init__(self, file: IO[bytes]) -> None:
        import numpy

        super().__init__(file, encoding="bytes")
        reconstruct = numpy.empty(0).__reduce__()[0]  # its name differs between versions of NumPy
        self._allowed = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): numpy.ndarray,
            ("numpy", "dtype"): numpy.dtype,
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise UserError(
                f"a data file asks for {module}.{name}, which is not plain data: delete it and download it again"
            )
        return self._allowed[module, name]
