"""What a run shows and measures while it goes: progress, TensorBoard, pictures, seconds and memory, and the host that ties them."""

import contextlib
import inspect
import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from pmi_cl.errors import UserError
from pmi_cl.models.host import Host
from pmi_cl.utils.records.resources import Phases
from pmi_cl.utils.records.tensorboard import EventWriter
from pmi_cl.utils.reports import pictures
from pmi_cl.utils.run.host import RunHost
from pmi_cl.utils.run.interrupts import Interrupted, Interrupts
from pmi_cl.utils.run.progress import Progress
from tests.support.fresh_memory import touch


class Costly:
    """A number that counts how often it is read, as a tensor on a device would be waited for."""

    def __init__(self):
        self.read = 0

    def __float__(self):
        self.read += 1
        return 0.5


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


# progress


def test_lines_are_seldom_and_values_are_read_only_for_them():
    out, value = io.StringIO(), Costly()
    progress = Progress("auto", out)
    for step in range(1, 1001):
        progress.update("training", step, 1000, loss=value)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().startswith("training: 1000/1000 in ") and "loss 0.5" in out.getvalue()
    assert value.read == 1


def test_a_long_phase_gets_a_line_now_and_then():
    out = io.StringIO()
    progress = Progress("auto", out, line_seconds=0.02)
    for step in range(1, 6):
        time.sleep(0.03)
        progress.update("inversion", step, 100, loss=torch.tensor(1.25))
    assert 3 <= out.getvalue().count("\n") <= 5
    assert "inversion: 5/100" in out.getvalue() and "loss 1.25" in out.getvalue()


def test_every_phase_has_its_end():
    out = io.StringIO()
    progress = Progress("auto", out)
    for phase in ("one", "two", "two"):
        for step in (1, 2):
            progress.update(phase, step, 2)
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == ["one", "two", "two"]


def test_silence_reads_and_writes_nothing():
    out, value = io.StringIO(), Costly()
    Progress("0", out).update("training", 1, 1, loss=value)
    assert out.getvalue() == "" and value.read == 0


@contextlib.contextmanager
def open_terminal(shown):
    """A terminal of the system's own; the bytes written to it stand in ``shown`` afterwards."""
    master, slave = os.openpty()

    def read():
        with contextlib.suppress(OSError):  # the other end is closed
            while block := os.read(master, 4096):
                shown.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w") as terminal:
        yield terminal
    reader.join()
    os.close(master)


@pytest.mark.parametrize("mode", ["auto", "1"])
def test_a_terminal_gets_a_bar(mode):
    shown, value = [], Costly()
    with open_terminal(shown) as terminal:
        progress = Progress(mode, terminal)
        began = time.monotonic()
        for step in range(1, 501):
            progress.update("training", step, 500, loss=value)
        spent = time.monotonic() - began
    text = b"".join(shown).decode()
    assert "training" in text and "500/500" in text and "loss 0.5" in text
    assert value.read <= 2 + spent / 0.5


def test_a_bar_that_is_wished_for_is_drawn_into_a_file_too():
    out = io.StringIO()
    progress = Progress("1", out)
    progress.update("training", 3, 10)
    progress.close()
    assert "3/10" in out.getvalue() and "\r" in out.getvalue()


# TensorBoard


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
    assert (written.Images("grid")[0].height, written.Images("grid")[0].width) == (4, 5)


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
    """A table under TEXT and a row under HPARAMS, beside the accuracies."""
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


def test_a_disk_that_takes_no_more_events_is_told_in_one_line(tmp_path):
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


# pictures


def test_the_grid_shows_each_image_once_enlarged_pixel_by_pixel():
    images = torch.zeros(6, 3, 8, 8)
    images[:, 0] = torch.linspace(0, 1, 6)[:, None, None]
    figure = pictures.sample_grid(images, torch.tensor([0, 0, 1, 1, 3, 3]), ["a", "b", "c", "d"], classes_per_task=2)
    picture = pictures.pixels(figure)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    for index in range(1, 6):  # the first is black, as the letters are
        red = np.array([51 * index, 0, 0])
        rows, columns = np.nonzero((picture == red).all(-1))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (48, 48)
        assert (picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == red).all()


def test_the_grid_names_the_classes_and_tasks_that_have_images():
    figure = pictures.sample_grid(
        torch.rand(3, 1, 16, 16), torch.tensor([5, 0, 5]), [f"class_{label}" for label in range(6)], 2
    )
    assert sorted(text.get_text() for text in figure.texts) == ["class 0", "class 5", "task 1", "task 3"]


def test_a_hundred_classes_stand_in_blocks_of_a_shape_that_fits_a_screen():
    labels = torch.arange(300) % 100
    figure = pictures.sample_grid(
        torch.rand(300, 3, 32, 32), labels, [f"$long_name_of_a_class_{label}$" for label in range(100)], 10
    )
    height, width, _ = pictures.pixels(figure).shape
    assert 0.7 < width / height < 2.5


@pytest.mark.parametrize(("side", "shown"), [(8, 48), (16, 48), (28, 56), (32, 64), (64, 64), (224, 74)])
def test_images_of_any_size_can_be_seen(side, shown):
    picture = pictures.pixels(pictures.sample_grid(torch.full((1, 3, side, side), 0.4), torch.tensor([0]), ["a"], 1))
    grey = (picture == 102).all(-1)  # here and there a letter has a pixel of the same grey
    assert [int((grey.sum(axis) >= shown).sum()) for axis in (0, 1)] == [shown, shown]


@pytest.mark.parametrize("tasks", [1, 5, 30])
def test_the_accuracy_matrix_shows_its_numbers(tasks):
    figure = pictures.accuracy_matrix(
        [[float(row + column) for column in range(row + 1)] for row in range(tasks)], "class-il"
    )
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert len(numbers) == (tasks * (tasks + 1) // 2 if tasks <= 25 else 0)
    assert tasks != 5 or numbers[-1] == "8.0"
    assert pictures.pixels(figure).std() > 0


def test_the_single_row_of_joint_training_is_shown_in_full():
    figure = pictures.accuracy_matrix([[float(task) for task in range(20)]], "joint")
    assert [text.get_text() for text in figure.axes[0].texts] == [str(task) for task in range(20)]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["1-20"]
    height, width, _ = pictures.pixels(figure).shape
    assert height < width / 2


def test_curves_are_drawn_on_a_log_scale_where_they_can_be():
    figure = pictures.loss_curves({"stem": [3.0, 1.0], "head": [2.0, 0.5]}, "inversion")
    assert figure.axes[0].get_yscale() == "log" and len(figure.axes[0].lines) == 2
    assert pictures.loss_curves({"stem": [1.0, 0.0]}, "inversion").axes[0].get_yscale() == "linear"
    assert all(float(place).is_integer() for place in figure.axes[0].get_xticks())  # there is no half step


def test_a_png_is_what_was_drawn(tmp_path):
    picture = pictures.pixels(pictures.accuracy_matrix([[50.0]], "one"))
    pictures.save_png(picture, tmp_path / "new" / "m.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "m.png")), picture)


def test_a_picture_whose_folder_cannot_be_made_is_a_users_matter(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot make the folder .*choose another --output"):
        pictures.save_png(np.zeros((2, 2, 3), np.uint8), tmp_path / "file" / "pictures" / "m.png", "--output")


# seconds and memory


def test_an_outer_phase_is_not_charged_for_the_inner_one():
    phases = Phases()
    began = time.perf_counter()
    with phases.phase("outer"):
        time.sleep(0.02)
        with phases.phase("inner"):
            time.sleep(0.06)
        time.sleep(0.02)
    spent = time.perf_counter() - began
    seconds = phases.seconds()
    assert seconds["inner"] >= 0.06 and 0.04 <= seconds["outer"] < spent - 0.06 + 1e-9
    assert sum(seconds.values()) == pytest.approx(spent, abs=2e-3)


def test_phases_add_up_over_entries_exceptions_and_a_resumed_run():
    phases = Phases()
    with pytest.raises(ZeroDivisionError), phases.phase("training"):
        time.sleep(0.01)
        raise ZeroDivisionError
    with phases.phase("training"):
        time.sleep(0.01)
        state = phases.state_dict()  # as at a safe point, inside the phase
    resumed = Phases()
    resumed.load_state_dict(state)
    with resumed.phase("training"):
        time.sleep(0.01)
    assert resumed.seconds()["training"] >= 0.03
    assert resumed.peak_memory_mib()["training"] > 0
    resumed_again = resumed.seconds()["training"]
    assert resumed_again == resumed.seconds()["training"], "a closed phase goes on costing"


def test_peak_memory_belongs_to_the_phase_that_used_it():
    phases = Phases()
    with phases.phase("small"):
        pass
    with phases.phase("large"):
        touch(200)
    with phases.phase("after"):
        pass
    peak = phases.peak_memory_mib()
    assert peak["large"] - peak["small"] > 180  # the system counts pages in batches
    assert peak["after"] - peak["small"] < 20 or peak["after"] == pytest.approx(
        peak["large"], rel=0.05
    )  # no mark to reset here


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_its_own_memory_is_measured():
    phases = Phases(torch.device("cuda", 0))
    with phases.phase("training"):
        torch.zeros(64 * 2**18, device="cuda")
    assert 64 <= phases.peak_memory_mib()["training"] < 128


# the host


def make_host(folder, save, interrupts=None, minutes=None, out=None):
    return RunHost(
        progress=Progress("auto", out or io.StringIO()),
        events=EventWriter(folder),
        phases=Phases(),
        interrupts=interrupts or Interrupts(),
        picture_folder=folder / "pictures",
        class_names=["zero", "one", "two", "three"],
        classes_per_task=2,
        save=save,
        checkpoint_minutes=minutes,
    )


def test_the_host_shows_what_it_is_told(tmp_path):
    out = io.StringIO()
    host = make_host(tmp_path, lambda: None, out=out)
    with host.phase("inversion"):
        host.progress("inverting", 4, 4, loss=torch.tensor(0.25))
        host.scalars({"inversion/stem": torch.tensor(0.25)}, 3)
        host.images("synthetic/task 1", torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
        host.curves("inversion/task 1", {"stem": [2.0, 1.0]})
    host.accuracies("class-il", [[90.0]])
    host.accuracies("class-il", [[90.0], [70.0, 80.0]])
    host.close()
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"synthetic-task-1.png", "inversion-task-1.png", "accuracy-class-il.png"}
    assert "loss 0.25" in out.getvalue() and host.phases.seconds()["inversion"] > 0
    written = read_events(tmp_path)
    assert [(event.step, event.value) for event in written.Scalars("class-il/average")] == [(1, 90.0), (2, 82.5)]
    assert [(event.step, event.value) for event in written.Scalars("class-il/task 1")] == [(1, 90.0), (2, 70.0)]
    assert [event.step for event in written.Images("accuracy-class-il")] == [1, 2]


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
