"""Test a user's own method, data set and network, handed to the command as a catalogue.

A run that their code stops ends in an orderly way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pmi_cl
from pmi_cl.cli import main
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.registry.extensions import Extension

SOURCE = '''
"""A method that makes a mistake in its second task, a data set and a network."""
from pmi_cl.backbones.resnet_cifar import ResNetCifar
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.models.resnet.sgd import Sgd

BACKBONES = {"own-net": "own_net"}
MISTAKES = {
    "ValueError": ValueError("a mistake"),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "OSError": OSError(28, "No space left"),
}


class Mistaken(Sgd):
    """Fine-tuning, for one task."""

    NAME = "mistaken"

    def observe(self, *args, **keys):
        if self.current_task == 1:
            raise MISTAKES[self.args.run_name]
        return super().observe(*args, **keys)


class Own(SeqDigits):
    """The digits under another name."""

    NAME = "seq-own"


def own_net():
    """One block a stage."""
    return ResNetCifar((1, 1, 1, 1))
'''
SIZES = "--n_classes 4 --n_tasks 2 --train_per_class 8 --batch_size 8 --n_epochs 2 --num_threads 1 --non_verbose 1"
WORDS = ["--model", "mistaken", "--dataset", "seq-own", "--backbone", "own-net", *SIZES.split()]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """Return the package's catalogue with three more entries, which no other catalogue knows."""
    (tmp_path / "own_source.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"model": ("mistaken", "Mistaken"), "dataset": ("seq-own", "Own"), "backbone": ("own-net", "own_net")}
    added = {
        kind: (Extension(kind, name, "own_source", attribute, "own"),) for kind, (name, attribute) in names.items()
    }
    return Catalogue(list(pmi_cl.__path__), lambda kind: added[kind])


def folder_of(results: Path, name: str) -> Path:
    return results / "mistaken" / "seq-own" / name


def results_in(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results


def test_a_run_loads_what_its_catalogue_names(own: Catalogue, tmp_path: Path) -> None:
    words = [
        *WORDS,
        "--results_path",
        str(tmp_path / "runs"),
        "--stop_after",
        "1",
        "--tensorboard",
        "0",
        "--run_name",
        "run",
    ]
    assert main(words, own) == 0
    assert results_in(folder_of(tmp_path / "runs", "run"))["status"] == "finished"
    assert main(words) == 2  # the installed ones do not know it


@pytest.mark.parametrize("mistake", ["ValueError", "KeyboardInterrupt", "OSError"])
def test_whatever_stops_a_run_is_recorded_and_its_events_are_written(
    mistake: str, own: Catalogue, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [*WORDS, "--results_path", str(tmp_path / "runs"), "--run_name", mistake]
    if mistake == "KeyboardInterrupt":  # as a second Ctrl-C
        assert main(words, own) == 130
    else:
        with pytest.raises((ValueError, OSError), match=r"a mistake|No space left"):
            main(words, own)
    folder = folder_of(tmp_path / "runs", mistake)
    results = results_in(folder)
    assert results["status"] == "failed" and len(results["class_il"]["matrix"]) == 1
    events = EventAccumulator(str(folder))
    events.Reload()
    # All of the first task: two steps in two epochs.
    assert [event.step for event in events.Scalars("loss/loss")] == [
        1,
        2,
        3,
        4,
    ]
