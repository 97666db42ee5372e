"""Read files of network weights as tensors and nothing else.

A file that could run code, or is not whole, is refused with a reason.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.errors import UserError
from pmi_cl.machine.digests import digest_of
from pmi_cl.machine.tensor_files import (
    DamagedFile,
    first_not_finite,
    is_whole_archive,
    read_tensors,
    refuse_swelling_archive,
)

if TYPE_CHECKING:
    from torch import Tensor

EXTENSIONS = (".safetensors", ".bin", ".pt", ".pth")
LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training programs save a state dict
COMPILED = "_orig_mod."  # in the names of modules that torch.compile has wrapped
PREFIXES = ("module.", "model.")  # of torch's parallel training, and of Lightning
Trusted = Callable[[str], bool]  # whether a file with this sha256 is one whose publisher is known


def check_file(path: Path, trusted: Trusted) -> dict[str, tuple[int, ...]] | None:
    """Refuse, without torch, a file that must not or cannot be read.

    It may be missing, truncated, no file of weights, larger than it looks, or able to run code.
    Return the shapes of the tensors if the format keeps them apart, else None.

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
    if form == "zip":
        refuse_swelling_archive(path)
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
    """Return the shape of every tensor in a safetensors file, under the network's own names.

    The file must be as long as its header says.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _truncated(path) from error
    own = network_names(shapes)
    return {own[name]: shape for name, shape in shapes.items()}


def network_names(names: Iterable[str]) -> dict[str, str]:
    """Return the network's own name of each parameter, without what wrappers put around it.

    "_orig_mod." is removed everywhere. "module." and "model." are removed where every name begins
    so.
    """
    own = {name: name.replace(COMPILED, "") for name in names}
    while found := [prefix for prefix in PREFIXES if own and all(name.startswith(prefix) for name in own.values())]:
        own = {name: short.removeprefix(found[0]) for name, short in own.items()}
    return own


def read_state(path: Path, trusted: Trusted) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU, after :func:`check_file`.

    Names are those of the network itself, as :func:`network_names` has them. What training programs
    put around a state dict is removed, too.

    Raises:
        UserError: as :func:`check_file`, or a number is not finite.
    """
    check_file(path, trusted)
    form = form_of(path)
    read = {"safetensors": _from_safetensors, "torchscript": _from_torchscript}.get(form, _from_torch)
    state = _unwrapped(read(path))
    import torch

    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict: give one as torch.save(model.state_dict(), FILE) writes it")
    place = first_not_finite(state)
    if place is not None:
        raise UserError(f"{path} holds numbers that are not finite (in {place}): give other weights")
    own = network_names(map(str, state))
    return {own[str(name)]: value for name, value in state.items()}


def _unwrapped(content: Any) -> Any:
    """Return the state dict in a training program's checkpoint, or else the content itself."""
    while isinstance(content, dict):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    return content


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
