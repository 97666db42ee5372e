"""TensorBoard's events: what they hold, and a disk that takes no more of them."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from pmi_cl.utils.records.tensorboard import EventWriter
from tests.support.event_files import read_events


def test_events_hold_scalars_and_pictures(tmp_path):
    events = EventWriter(tmp_path, buffered=7)
    running = torch.zeros(())
    for step in range(20):
        running += 1  # in place, as a loop may do
        events.scalars({"loss": running, "lr": 0.1 * step}, step)
    events.image("grid", np.full((4, 5, 3), 200, np.uint8), 0)
    events.close()
    written = read_events(tmp_path)
    assert [event.value for event in written.Scalars("loss")] == [float(step) for step in range(1, 21)]
    assert [event.value for event in written.Scalars("lr")] == pytest.approx([0.1 * step for step in range(20)])
    assert (written.Images("visuals/grid")[0].height, written.Images("visuals/grid")[0].width) == (4, 5)


def test_long_curves_are_thinned_evenly_and_keep_their_start(tmp_path):
    events = EventWriter(tmp_path)
    for step in range(20_000):
        events.scalars({"loss": 1.0}, step)
    events.close()
    steps = [event.step for event in read_events(tmp_path).Scalars("loss")]
    assert steps[:1000] == list(range(1000))
    assert len(steps) < 3000
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 40 and steps[-1] > 19_900


def test_a_curve_that_starts_again_is_kept(tmp_path):
    events = EventWriter(tmp_path)
    for step in (0, 1, 2, 0, 1, 2):
        events.scalars({"layer": 1.0}, step)
    events.close()
    assert [event.step for event in read_events(tmp_path).Scalars("layer")] == [0, 1, 2, 0, 1, 2]


def test_settings_tell_runs_apart(tmp_path):
    """They are a table under TEXT and a row under HPARAMS, beside the accuracies."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    settings = {
        "model": "pmi_moe",
        "lr": 0.003,
        "n_epochs": 3,
        "balanced": True,
        "lr_milestones": (0.2, 0.4),
        "preset": None,
    }
    events = EventWriter(tmp_path, settings=settings)
    assert not list(tmp_path.iterdir())  # TensorBoard takes a second to import: only with the first event
    events.scalars({"class-il/last": 88.0}, 1)
    events.close()
    read = read_events(tmp_path)
    (text,) = read.Tensors("settings/text_summary")
    assert (
        b"| lr | 0.003 |" in text.tensor_proto.string_val[0]
        and b"| model | pmi_moe |" in text.tensor_proto.string_val[0]
    )
    told = HParamsPluginData.FromString(
        read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info.hparams
    assert (told["model"].string_value, told["lr"].number_value, told["balanced"].number_value) == ("pmi_moe", 0.003, 1)
    assert (told["lr_milestones"].string_value, told["preset"].string_value) == ("(0.2, 0.4)", "None")
    assert read.Scalars("class-il/last")[0].value == 88.0


def test_switched_off_it_writes_nothing(tmp_path):
    events = EventWriter(tmp_path, enabled=False)
    events.scalars({"loss": 1.0}, 0)
    events.image("grid", np.zeros((2, 2, 3), np.uint8), 0)
    events.close()
    assert not any(tmp_path.iterdir())


# a limit on a file's size stands for a full disk: the first events fit, the others do not
FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from pmi_cl.utils.records.tensorboard import EventWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
events = EventWriter(Path(sys.argv[1]), buffered=2)
for step in range(400):
    events.scalars({"loss": 1.0}, step)
    if step % 100 == 0:
        events.image("noise", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), step)
events.close()
"""


def test_a_disk_that_takes_no_more_events_is_reported_in_one_line(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    told = f"cannot write TensorBoard's events into {tmp_path} (File too large): the run goes on without them\n"
    assert (done.returncode, done.stderr) == (0, told)


@pytest.mark.parametrize("first", ["scalars", "image"])
def test_events_that_have_no_place_are_left_out(tmp_path, capsys, first):
    taken = tmp_path / "file"
    taken.touch()
    events = EventWriter(taken, buffered=1)
    for step in (1, 2):
        if first == "scalars":
            events.scalars({"loss": 1.0}, step)
        else:
            events.image("grid", np.zeros((2, 2, 3), np.uint8), step)
    events.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "the run goes on without them" in line
