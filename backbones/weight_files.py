"""Read files of network weights as tensors and nothing else.

A file that could run code, or is not whole, is refused with a reason.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.errors import UserError
from pmi_cl.machine.digests import digest_of
from pmi_cl.machine.tensor_files import DamagedFile, is_whole_archive, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

EXTENSIONS = (".safetensors", ".bin", ".pt", ".pth")
LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format
Trusted = Callable[[str], bool]  # whether a file with this sha256 is one whose publisher is known


def check_file(path: Path, trusted: Trusted) -> dict[str, tuple[int, ...]] | None:
    """Refuse, without torch, a file that must not or cannot be read.

    It may be missing, truncated, no file of weights, or able to run code. Return the shapes of the
    tensors if the format keeps them apart, else None.

    Args:
        path: the file.
        trusted: asked for TorchScript archives alone, which hold code beside their weights.

    Raises:
        UserError: says which of these it is.
    """
    form = form_of(path)
    if form == "torchscript" and not trusted(digest_of(path)):
        raise UserError(
            f"{path} was refused and nothing in it was run: it is a TorchScript archive, which holds code, "
            "and not one that OpenAI published; give a .safetensors file, or a state dict saved by torch.save"
        )
    return _header_shapes(path) if form == "safetensors" else None


def form_of(path: Path) -> str:
    """Return the form of a file of weights.

    It is "safetensors", "zip" (torch.save), "pickle" (torch.save before 1.6) or "torchscript".

    Raises:
        UserError: it has another form.
    """
    if not path.is_file():
        raise UserError(f"no file of weights at {path}: give one, a folder with one, a tag of open_clip's, or random")
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                return (
                    "torchscript"
                    if any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist())
                    else "zip"
                )
    except zipfile.BadZipFile:
        raise _truncated(path) from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check its permissions") from error
    if start[:1] == b"\x80":
        return "pickle"
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER:
        return "safetensors"
    raise UserError(f"{path} is no file of weights: give a .safetensors file, or a state dict saved by torch.save")


def _truncated(path: Path) -> UserError:
    return UserError(f"{path} is truncated or damaged: fetch it again")


def _header_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a safetensors file.

    The file must be as long as its header says.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
            shapes = {name: tuple(tensor["shape"]) for name, tensor in header.items()}
        except (ValueError, LookupError, TypeError, RecursionError):
            raise _truncated(path) from None
    if path.stat().st_size != 8 + length + end:
        raise _truncated(path)
    return shapes


def read_state(path: Path, trusted: Trusted) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU, after :func:`check_file`.

    Names are those of the network itself: "state_dict" around them and "module." before each are
    removed.
    """
    check_file(path, trusted)
    form = form_of(path)
    read = {"safetensors": _from_safetensors, "torchscript": _from_torchscript}.get(form, _from_torch)
    content = read(path)
    wrapped = isinstance(content, dict) and isinstance(content.get("state_dict"), dict)
    state = content["state_dict"] if wrapped else content
    import torch

    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict: give one as torch.save(model.state_dict(), FILE) writes it")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _truncated(path) from error


def _from_torch(path: Path) -> Any:
    try:
        if form_of(path) == "zip" and not is_whole_archive(path):
            raise _truncated(path)
        return read_tensors(path)
    except (DamagedFile, OSError) as error:
        raise _truncated(path) from error


def _from_torchscript(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        return torch.jit.load(str(path), map_location="cpu").state_dict()
    except RuntimeError as error:
        raise _truncated(path) from error
