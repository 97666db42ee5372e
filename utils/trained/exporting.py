"""Write a trained network for other programs: as safetensors, by torch.export, or as ONNX."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pmi_cl.errors import UserError
from pmi_cl.utils.records.atomic import write_atomically
from pmi_cl.utils.records.model_file import Preprocessing, write_model

if TYPE_CHECKING:
    from pmi_cl.utils.trained.trained_model import TrainedModel

FLAG = "--output"
_NEEDED = ("onnx", "onnxscript")  # by torch's exporter


class _FromPixels(nn.Module):
    """The network with its normalisation: images (b, 3, h, w) in [0, 1] to logits (b, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.method = model.method
        self.classes = len(model.class_names)
        form = model.record.preprocessing
        for name, values in (("mean", form.mean), ("std", form.std)):
            self.register_buffer(name, torch.tensor(values, device=model.device)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images of the network's own size."""
        return self.method((images - self.mean) / self.std)[:, : self.classes]


def check_packages(path: Path) -> None:
    """Raise UserError before any work if a package for this kind of file is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if path.suffix.lower() == ".onnx" and missing:
        advice = f"pip install {' '.join(missing)}, or export to a file that ends in .pt2"
        raise UserError(f"--output {path}: ONNX needs {' and '.join(missing)}: {advice}")


def export(model: TrainedModel, path: Path) -> int:
    """Write the network in the form that the ending of ``path`` says. Return the bytes of the file.

    Raises:
        UserError: the network cannot be written in this form, or the file cannot be written.
    """
    if path.suffix.lower() == ".safetensors":
        method = model.method
        return write_model(path, method.network_state(), model.record, method.backbone_state(), FLAG)
    side = model.record.preprocessing.form
    size = model.record.preprocessing.side if side is None else side[0]
    example = torch.zeros(2, 3, size, size, device=model.device)
    with _quiet(path):
        batch = {"images": {0: torch.export.Dim("batch", min=1)}}
        # Strict: a trace alone would fix the size of the batch wherever len() is asked for it.
        program = torch.export.export(_FromPixels(model).eval(), (example,), dynamic_shapes=batch, strict=True)
        if path.suffix.lower() == ".onnx":
            onnx = torch.onnx.export(program, dynamo=True, verbose=False)
            write_atomically(path, lambda file: _write_onnx(onnx, file, model), FLAG)
        else:
            about = {"pmi_cl.json": json.dumps(_about(model), indent=2)}
            write_atomically(path, lambda file: torch.export.save(program, file, extra_files=about), FLAG)
    return path.stat().st_size


def _write_onnx(program: Any, file: IO[bytes], model: TrainedModel) -> None:
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = "pmi_cl", json.dumps(_about(model))
    file.write(proto.SerializeToString())


def _about(model: TrainedModel) -> dict[str, Any]:
    """Return what a program that runs the network must know."""
    form = model.record.preprocessing
    size = form.side if form.form is None else form.form[0]
    return {
        "run": model.name,
        "class_names": list(model.class_names),
        "input": f"float32 (b, 3, {size}, {size}) in [0, 1]; the network normalises it",
        "output": "logits (b, classes)",
        "preprocessing": dataclasses.asdict(form),
        "steps": _steps(form),
    }


def _steps(form: Preprocessing) -> list[str]:
    """Return in words how an image file becomes the input, for people who have not this package."""
    side = f"{form.side} x {form.side}"
    square = {
        "upright": f"turn the image as its EXIF data says, cut the central square, resize it (bilinear) to {side}",
        "squash": f"resize the whole image (bicubic) to {side}; EXIF data are ignored",
        "crop": f"resize the shorter side (bicubic) to {form.side}, cut the central square; EXIF data are ignored",
    }[form.decoding]
    steps = [
        f"in files with 16 bits for each channel, scale {form.white} to 255",
        f"lay transparency on the colour {form.background} (red, green, blue)",
        square,
    ]
    if form.form is not None:
        size, resize = form.form
        how = "resize it" if resize == "squash" else "resize its shorter side and cut the central square"
        steps.append(f"{how} (bicubic, with anti-aliasing) to {size} x {size}")
    return [*steps, "divide by 255"]


@contextlib.contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Keep torch's own words to itself; turn its errors into one line."""
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:  # a compiler may raise almost any error
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"torch cannot export this network to {path.suffix} ({first}): use .safetensors") from error
    finally:
        log.setLevel(level)
