"""The host of a run: what it shows, when it saves, and how it stops."""

from __future__ import annotations

import inspect
import io
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError
from pmi_cl.models.host import Host, PhaseState
from pmi_cl.utils.records.resources import Phases
from pmi_cl.utils.records.tensorboard import EventWriter
from pmi_cl.utils.run.host import RunHost
from pmi_cl.utils.run.interrupts import Interrupted, Interrupts
from pmi_cl.utils.run.progress import Progress
from tests.support.event_files import read_events

pytestmark = pytest.mark.usefixtures("letters")


def make_host(folder, save, interrupts=None, minutes=None, out=None):
    return RunHost(
        progress=Progress("auto", out or io.StringIO(), line_seconds=0.0),
        events=EventWriter(folder),
        phases=Phases(),
        interrupts=interrupts or Interrupts(),
        picture_folder=folder / "pictures",
        title="sgd on seq-digits, seed 3",
        class_names=["zero", "one", "two", "three"],
        tasks=TaskSplit((2, 2)),
        save=save,
        checkpoint_minutes=minutes,
    )


def test_the_host_shows_what_it_is_told(tmp_path):
    out = io.StringIO()
    host = make_host(tmp_path, lambda: None, out=out)
    with host.phase("inversion"):
        host.progress("inverting", PhaseState(4, 4, values={"loss": torch.tensor(0.25)}))
        host.scalars({"inversion/stem": torch.tensor(0.25)}, 3)
        host.images("synthetic/task 1", torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
        host.curves("inversion/task 1", {"stem": [2.0, 1.0]})
    host.accuracies("class-il", [[90.0]])
    host.accuracies("class-il", [[90.0], [70.0, 80.0]])
    host.by_class([["0:3", "0:1 1:2"]])
    host.by_class([None, ["0:3", "0:1 1:2", "2:1", "3:4"]])
    host.close()
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    by_class = {"confusion.png", "accuracy-by-class.png"}
    assert names == {"synthetic-task-1.png", "inversion-task-1.png", "accuracy-class-il.png"} | by_class
    assert "loss 0.25" in out.getvalue() and host.phases.seconds()["inversion"] > 0
    written = read_events(tmp_path)
    assert [(event.step, event.value) for event in written.Scalars("class-il/average")] == [(1, 90.0), (2, 82.5)]
    assert [(event.step, event.value) for event in written.Scalars("class-il/task 1")] == [(1, 90.0), (2, 70.0)]
    assert [event.step for event in written.Images("visuals/accuracy-class-il")] == [1, 2]


def test_the_host_counts_joint_training_as_all_of_its_tasks(tmp_path):
    host = make_host(tmp_path, lambda: None)
    host.accuracies("class-il", [[90.0, 70.0, 80.0]])
    host.close()
    assert [(event.step, event.value) for event in read_events(tmp_path).Scalars("class-il/last")] == [(3, 80.0)]


def test_a_safe_point_does_nothing_while_nothing_is_due(tmp_path):
    saves = []
    make_host(tmp_path, lambda: saves.append(1), minutes=10).safe_point()
    make_host(tmp_path, lambda: saves.append(1)).safe_point()
    assert saves == []


def test_the_clock_saves_again_and_again_and_a_save_sets_it_back(tmp_path):
    saves = []
    host = make_host(tmp_path, lambda: saves.append(1), minutes=0.05 / 60)
    for expected in (1, 2):
        time.sleep(0.06)
        host.safe_point()
        host.safe_point()
        assert len(saves) == expected
    time.sleep(0.06)
    host.save()
    host.safe_point()
    assert len(saves) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_once_and_then_stops(tmp_path, number, code):
    saves = []
    with Interrupts() as interrupts:
        host = make_host(tmp_path, lambda: saves.append(1), interrupts)
        os.kill(os.getpid(), number)
        assert saves == []
        with pytest.raises(Interrupted) as stop:
            host.safe_point()
    assert saves == [1] and stop.value.exit_code == code


def test_a_save_that_fails_says_so_instead_of_stopping_quietly(tmp_path):
    def save():
        raise UserError("cannot write checkpoint.pt")

    with Interrupts() as interrupts:
        host = make_host(tmp_path, save, interrupts)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(UserError):
            host.safe_point()


def test_reports_import_nothing_heavy():
    heavy = ("torch", "matplotlib", "tensorboard", "PIL", "tqdm")
    code = f"import sys, pmi_cl.utils.run.host; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_host_offers_all_that_a_method_may_ask_for():
    asked = {
        name: method for name, method in vars(Host).items() if inspect.isfunction(method) and not name.startswith("_")
    }
    assert {"progress", "scalars", "images", "phase", "safe_point"} <= set(asked)
    for name, method in asked.items():
        assert list(inspect.signature(getattr(RunHost, name)).parameters) == list(inspect.signature(method).parameters)
