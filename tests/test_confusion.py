"""Confusion matrices in a record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pmi_cl.utils.records.atomic import write_json
from pmi_cl.utils.records.confusion import as_table, as_texts, by_class, summary


def test_a_matrix_becomes_texts_and_comes_back() -> None:
    table = [[34, 0, 2], [0, 0, 0], [1, 0, 12]]
    assert as_texts(table) == ["0:34 2:2", "", "0:1 2:12"]
    assert as_table(as_texts(table), 3) == table
    assert as_table(["0:1 4:2"], 5) == [[1, 0, 0, 0, 2]]  # a class of a later task was predicted
    assert by_class(table) == [100 * 34 / 36, 0.0, 100 * 12 / 13]
    for wrong in (["a:1"], ["1"], ["0:1:2"], ["0:1 5:2"], ["999999999:1"]):
        with pytest.raises(ValueError):
            as_table(wrong, 5)


def test_the_figures_of_a_record_leave_out_what_was_not_counted() -> None:
    found = summary([None, ["0:3", "0:1 1:2"]], ["cat", "dog", "bird"])
    assert found == {
        "class_names": ["cat", "dog"],
        "images": [3, 3],
        "accuracy": [None, [100.0, 66.6667]],
        "confusion": [None, ["0:3", "0:1 1:2"]],
    }
    assert summary([], ["cat"]) == {"class_names": [], "images": [], "accuracy": [], "confusion": []}


def test_a_list_of_numbers_takes_one_line_of_a_record(tmp_path: Path) -> None:
    content = {
        "a": [1.5, None, -2],
        "b": ["[\n 1 ]", "x"],
        "c": [[1], []],
        "d": [True, float("nan")],
        "e": [{"f": [1, 2]}],
    }
    write_json(tmp_path / "file.json", content)
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text) == {**content, "d": [True, None]}
    assert '"a": [1.5, null, -2],\n' in text and '{\n      "f": [1, 2]\n' in text
