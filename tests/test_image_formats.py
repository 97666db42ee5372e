"""Test that image files of four formats are opened and no others, everywhere in the project."""

from __future__ import annotations

import ast
import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from pmi_cl.datasets.files.image_formats import FORMATS, OtherFormat, open_image
from pmi_cl.datasets.seq_folder import SeqFolder
from pmi_cl.errors import UserError
from tests.support.image_sets import make_folder

ROOT = Path(__file__).resolve().parent.parent
CODE = ("pmi_cl", "backbones", "datasets", "inversion", "models", "utils", "benchmarks", "examples", "tools")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"


def file_of(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_content_counts_and_not_the_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "any.bmp"
    path.write_bytes(file_of(kind))
    with open_image(path) as image:
        assert image.format == kind and image.size == (8, 8)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (file_of("GIF"), "it is GIF, not PNG"),
        (file_of("TIFF"), "it is TIFF, not PNG"),
        (file_of("ICO"), "it is ICO, not PNG"),
        (file_of("PPM"), "it is PPM, not PNG"),
        (EPS, "it is EPS, not PNG"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "it is EPS, not PNG"),
        (b"%PDF-1.7", "it is PDF, not PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "it is HEIC, not PNG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "it is AVIF, not PNG"),
        (b"8BPS\0\1", "it is Photoshop, not PNG"),
        (b"\n<!DOCTYPE HTML><html>not found</html>", "it is a web page, not PNG"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "it is SVG, not PNG"),
        (b"", "it is empty"),
        (b"just words", "of no known format"),
    ],
)
def test_another_format_is_named(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(OtherFormat, match=kind), open_image(path):
        pass


def test_no_file_starts_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file named .png with EPS content: Pillow would hand it to Ghostscript."""
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/mark\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    data = make_folder(tmp_path / "data")
    (data / "c1" / "z.png").write_bytes(EPS)
    args = SimpleNamespace(data_dir=str(data), image_size=8)
    for use in (SeqFolder.check, lambda args: SeqFolder(args, "cpu")):
        with pytest.raises(UserError, match=r"z.png is not a readable image \(it is EPS, not PNG, JPEG, WebP or BMP\)"):
            use(args)
    assert not (tmp_path / "mark").exists()


def test_every_place_that_opens_images_says_which_formats() -> None:
    opened = []
    for path in (file for folder in CODE for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name.rpartition(".")[2] not in ("imread", "read_image", "decode_image", "ImageFolder"), path
                if name.endswith("Image.open"):
                    opened.append(path.name)
                    assert "formats" in {word.arg for word in node.keywords}, f"{path}:{node.lineno}"
    assert opened == ["image_formats.py"]
