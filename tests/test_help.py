"""--help and --list: every flag with its default, its unit and its source."""

from __future__ import annotations

import pytest

from pmi_cl.registry.catalogue import Catalogue
from tests.support.sample_registry import PROMPTS, RUN, printed


def test_list_names_everything(catalogue: Catalogue, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["--list"], catalogue, capsys)
    assert "models (--model) finetune Plain fine-tuning. invert_it Inversion of the old classes." in text
    assert "net-small A small network." in text and "seq-hundred A hundred classes." in text
    assert "invert_it paper [default] the values of the paper invert_it quick [default on seq-folder] a minute" in text


def test_help_alone_shows_the_flags_of_every_run(catalogue: Catalogue, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["--help"], catalogue, capsys)
    assert "usage: python main.py --model MODEL --dataset DATASET" in text
    shown = "--checkpoint_minutes FLOAT time between two checkpoints within a task, besides "
    shown += "the one at its end (default 10 minutes, "
    assert f"{shown}above 0, at most 1000000)" in text
    assert printed(["-h"], catalogue, capsys) == text


def test_help_with_a_model_shows_its_flags_with_default_unit_and_source(
    catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(["--help", "--model", "invert_it"], catalogue, capsys)
    assert "--lr FLOAT learning rate (default 0.1, above 0; source: paper, Table 1)" in text
    assert "--milestones INT,... where the rate falls (default 48,80 epochs)" in text
    assert "--start noise|pmi start image (default pmi)" in text
    assert "--steps INT steps on an image; none: enough (steps, at least 1)" in text
    assert "paper [default] the values of the paper" in text


def test_help_with_both_shows_the_values_of_the_preset(
    catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(["--help", *RUN], catalogue, capsys)
    assert "--n_epochs INT other passes (60 epochs by the preset paper (seq-hundred), at least 1)" in text
    assert "--class_order TEXT order of the classes (default default)" in text


def test_help_shows_the_flags_of_the_backbone_that_a_run_would_have(
    catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = "--weights TEXT where from (default good)"
    for argv in (PROMPTS, PROMPTS[:2], ["--backbone", "vit:One-2"], [*PROMPTS, "--backbone", "vit:One-2"]):
        assert weights in printed(["--help", *argv], catalogue, capsys)
    changed = printed(["--help", *PROMPTS, "--model_config", "small"], catalogue, capsys)
    assert "where from (small by the preset small)" in changed
    assert weights not in printed(["--help", *RUN], catalogue, capsys)
