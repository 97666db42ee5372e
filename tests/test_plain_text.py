"""Test texts whose bytes are not UTF-8: shown, recorded, drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pmi_cl.machine.plain_text import LONGEST, excerpt, few, is_number, printable, typed_text
from pmi_cl.machine.terminal import show, tell
from pmi_cl.utils.records.atomic import write_json
from pmi_cl.utils.records.record_shape import read_json
from pmi_cl.utils.records.tensorboard import EventWriter

LATIN = "caf\udce9"  # "café" in Latin-1, as Python reads it from the command line
IN_C = "caf\udcc3\udca9"  # "café" in UTF-8, as Python reads it under LC_ALL=C


@pytest.mark.parametrize(
    ("text", "shown"),
    [("cafe", "cafe"), ("café", "café"), (LATIN, "caf\\xe9"), (IN_C, "café"), ("\ud800", "\\ud800")],
)
def test_any_text_can_be_shown(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(text) == shown
    show(f"{text}\n")
    tell(text)
    assert capsys.readouterr() == (f"{shown}\n", f"{shown}\n")


def test_a_typed_text_is_the_one_that_was_meant() -> None:
    assert typed_text(IN_C) == typed_text("café") == "café"
    for text in (LATIN, "\ud800"):
        with pytest.raises(ValueError, match="not UTF-8"):
            typed_text(text)


def test_an_excerpt_is_one_short_line() -> None:
    assert excerpt("a\nb\r\nc") == "a b c" and excerpt(LATIN) == "caf\\xe9" and excerpt(None) == "None"
    assert len(excerpt("x" * 10_000)) == LONGEST + 3
    assert excerpt(10**5000) == "(a int too long to show)"


@pytest.mark.parametrize("text", [LATIN, IN_C, "café", "\ud800"])
def test_a_record_holds_any_name_and_gives_it_back(text: str, tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"path": text})
    (tmp_path / "x.json").read_bytes().decode("utf-8")
    assert read_json(tmp_path / "x.json") == json.loads((tmp_path / "x.json").read_text("utf-8")) == {"path": text}


def test_tensorboard_takes_any_name(tmp_path: Path) -> None:
    events = EventWriter(tmp_path, settings={"data_dir": LATIN, "templates": (LATIN, "\ud800")})
    events.scalars({f"loss/{LATIN}": 1.0}, 1)
    events.image(IN_C, np.zeros((2, 2, 3), dtype=np.uint8), 1)
    events.close()
    (file,) = tmp_path.glob("events.*")
    content = file.read_bytes()
    assert b"loss/caf\\xe9" in content and "café".encode() in content


def test_few_texts_are_named_and_the_others_are_not_made() -> None:
    made = []

    def text(number: int) -> str:
        made.append(number)
        return str(number)

    assert few(map(text, range(1000))) == "0, 1, 2, ..." and len(made) == 4
    assert (few("ab"), few("abc"), few("abcd", most=4), few([])) == ("a, b", "a, b, c", "a, b, c, d", "")


@pytest.mark.parametrize(("word", "number"), [("-1e-3", True), ("nan", True), ("7", True), ("-x", False), ("", False)])
def test_a_number_is_told_from_a_flag(word: str, number: bool) -> None:
    assert is_number(word) == number
