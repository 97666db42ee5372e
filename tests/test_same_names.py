"""Test that two classes with one text are refused: a CLIP could never tell them apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pmi_cl.cli import main
from pmi_cl.models.clip.text_classifier import ClassTexts
from tests.support.image_sets import write_image
from tests.support.small_clips import small_clip
from tests.support.small_runs import CLIP_METHODS

pytestmark = pytest.mark.usefixtures("letters")


def folder_of(root: Path, *classes: str) -> Path:
    for label, name in enumerate(classes):
        for k in range(4):
            write_image(root / name / f"{k}.png", colour=(40 * k, 90 * label, 0))
    return root


def outcome(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str, backbone: str = "clip-tiny"
) -> tuple[int, str]:
    """Return the exit code of a short run and its only line on stderr."""
    typed = ["--model", method, "--backbone", backbone, "--tensorboard", "0", "--progress", "0", *words]
    code = main(
        [*typed, "--n_epochs", "1", "--results_path", str(tmp_path / "runs")][: None if method != "zsclip" else -4]
    )
    return code, capsys.readouterr().err


@pytest.mark.parametrize("method", CLIP_METHODS)
@pytest.mark.parametrize("names", [("tree_frog", "tree frog"), ("crane", "Crane")], ids=["underscore", "case"])
def test_every_method_that_reads_names_refuses_them(
    method: str,
    names: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path / "images", "ant", *names)
    code, said = outcome(
        method, tmp_path, capsys, "--dataset", "seq-folder", "--data_dir", str(folder), "--n_tasks", "3"
    )
    assert code == 2 and said.count("\n") == 1
    assert all(f"'{name}'" in said for name in names) and "one and the same text for a CLIP ('a bad photo of a " in said
    assert not list(tmp_path.glob("**/args.json"))


def test_domains_with_a_name_in_common_share_one_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same name under templates of two data sets is two texts, and under one it is one."""
    monkeypatch.chdir(tmp_path)
    one, other = folder_of(tmp_path / "one", "ant", "five"), folder_of(tmp_path / "other", "bee", "ant")
    domains = ["--dataset", "seq-multi", "--domains"]
    code, said = outcome("zsclip", tmp_path, capsys, *domains, f"seq-folder:{one},seq-folder:{other}")
    assert code == 2 and "the classes 0 'ant' and 2 'ant' are one and the same text" in said
    assert outcome("zsclip", tmp_path, capsys, *domains, f"seq-digits,seq-folder:{one}") == (0, "")


def test_classes_with_several_texts_are_compared_by_all_of_them() -> None:
    net = small_clip()
    both = ("a {}.", "the {}.")
    assert ClassTexts(net, ["ant", "bee", "ANT"], [both] * 3).same_texts() == (0, 2)
    assert ClassTexts(net, ["ant", "bee", "ant"], [both, both, ("a {}.", "an {}.")]).same_texts() is None
    assert torch.equal(*ClassTexts(net, ["ant", "ANT"], [("a {}.",)] * 2).features(range(2)))
