"""Short runs whose networks are used, images for them, and commands that have to refuse."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pmi_cl.cli import main
from pmi_cl.datasets.seq_digits import FILE
from tests.support.command_runs import quick

ONE_EPOCH = {
    "inv_steps": 1,
    "pmi_steps": 1,
    "generator_steps": 1,
    "generator_epochs": 1,
    "cont_epochs": 1,
    "buffer_images": 8,
}


@functools.cache
def run_of(method: str) -> Path:
    """Return the folder of a short run, made once for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="pmi-cl-test-"))
    code, run = quick(method, folder, "run", **ONE_EPOCH)
    assert code == 0
    return run


@functools.cache
def digit_files() -> Path:
    """Return a folder with five images of each of the digits 0 to 3, in folders of their names."""
    folder = Path(tempfile.mkdtemp(prefix="pmi-cl-test-"))
    with np.load(FILE) as file:
        images, labels = (file["images"] * (255 / 16)).round().astype(np.uint8), file["labels"]
    for digit in range(4):
        (folder / str(digit)).mkdir()
        for number, row in enumerate(np.flatnonzero(labels == digit)[:5]):
            Image.fromarray(images[row]).save(folder / str(digit) / f"{number}.png")
    return folder


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that has to refuse. Return its one line."""
    capsys.readouterr()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, err
    return err
