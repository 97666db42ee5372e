"""Test that what would stop a run later is found before it.

Files are real, as are a read-only disk and a full one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pmi_cl.datasets.seq_folder import SeqFolder
from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError
from pmi_cl.machine.device import pick_device
from pmi_cl.machine.disk import ROOM_MIB, check_writable
from pmi_cl.registry.catalogue import Entry
from pmi_cl.utils.arguments.command_line import Resolved, all_specs, resolve
from pmi_cl.utils.records import checkpoints
from pmi_cl.utils.run.identity import identity
from pmi_cl.utils.run.preflight import outline_of, preflight


class Pairs:
    """A data set with an even number of classes."""

    @classmethod
    def check(cls, args):
        if args.n_classes % 2:
            raise UserError(f"--n_classes {args.n_classes}: give an even number")

    @classmethod
    def n_classes(cls, args):
        return args.n_classes

    @classmethod
    def n_tasks(cls, args):
        return args.n_classes // 2

    @classmethod
    def task_split(cls, args):
        return TaskSplit((2,) * cls.n_tasks(args))

    @classmethod
    def image_size(cls, args):
        return 8

    @classmethod
    def shown_classes(cls, args):
        return list(range(args.n_classes))


class Modest:
    """A method that takes at most ten classes, and one task on a narrow network."""

    @classmethod
    def check(cls, args, outline):
        if outline.n_classes > 10:
            raise UserError(f"{outline.n_classes} classes: give at most ten")
        if outline.n_tasks > 1 and outline.network == "narrow":
            raise UserError(f"{outline.n_tasks} tasks: the network is narrow")

    @classmethod
    def samples_mib(cls, args, outline):
        return args.mib


def check(args):
    """What the module of a backbone may have."""
    if getattr(args, "weights", "") == "gone":
        raise UserError("--weights gone: give others")


def outline(args):
    """The same."""
    return getattr(args, "network", None)


def make_run(results_path, **changes):
    args = {
        "device": "cpu",
        "results_path": str(results_path),
        "loadcheck": None,
        "resume": None,
        "n_classes": 2,
        "mib": 0,
        "stop_after": None,
        "seed": 0,
    }
    entries = [
        Entry(kind, name.lower(), __name__, name, "")
        for kind, name in (("model", "Modest"), ("dataset", "Pairs"), ("backbone", "Net"))
    ]
    defaults = {spec.name: spec.default for spec in all_specs(*entries)}
    return Resolved(SimpleNamespace(**defaults | args | changes), {}, *entries)


def test_the_backbone_is_asked_for_its_weights(tmp_path):
    with pytest.raises(UserError, match="--weights gone"):
        preflight(make_run(tmp_path, weights="gone"))


def test_the_method_is_asked_too(tmp_path):
    with pytest.raises(UserError, match="12 classes: give at most ten"):
        preflight(make_run(tmp_path, n_classes=12))


def test_the_method_is_told_what_the_backbone_will_be(tmp_path):
    preflight(make_run(tmp_path, n_classes=4))
    with pytest.raises(UserError, match="2 tasks: the network is narrow"):
        preflight(make_run(tmp_path, n_classes=4, network="narrow"))


def test_a_run_that_can_go_leaves_nothing_behind(tmp_path):
    preflight(make_run(tmp_path / "a" / "b"))
    assert not any(tmp_path.iterdir())


def test_there_must_be_room_for_two_checkpoints_with_the_synthetic_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=ROOM_MIB * 2**20 + 20 * 2**20))
    preflight(make_run(tmp_path, mib=10))
    with pytest.raises(UserError, match=rf"make room \({ROOM_MIB + 22} MiB\)"):
        preflight(make_run(tmp_path, mib=11))
    assert not any(tmp_path.iterdir())


def test_samples_larger_than_the_memory_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"at least 100,000,000 MiB of memory, cpu has .*: lower --buffer_images \(9000\)"
    ):
        preflight(make_run(tmp_path, mib=1e8, buffer_images=9000))


def estimate(run):
    """The MiB of a run's samples, as preflight asks for them."""
    outline = outline_of(run.args, run.dataset.load(), run.backbone.load_module())
    return run.model.load().samples_mib(run.args, outline)


def test_the_samples_of_a_run_are_estimated_from_its_images(tmp_path):
    """20,000 CIFAR images are 234 MiB.

    In PMI, the stem's outputs for a batch of 4000 are added six times.
    """
    words = ["--model", "pmi_rdfcil", "--dataset", "seq-cifar100", "--buffer_images", "20000", "--inv_batch", "4000"]
    for start, expected in (("noise", 234.375 + 6 * 46.875), ("pmi", 234.375 + 6 * 250)):
        assert estimate(resolve([*words, "--buffer_per_task", "0", "--inv_start", start])) == pytest.approx(expected)
    run = resolve([*words, "--inv_start", "noise", "--buffer_per_task", "1000", "--n_tasks", "5"])
    assert estimate(run) == pytest.approx(234.375 * 24 / 20 + 6 * 46.875)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    run = resolve(["--model", "sgd", "--dataset", "seq-folder", "--data_dir", str(tmp_path), "--image_size", "48"])
    assert estimate(run) == 0 and SeqFolder.image_size(run.args) == 48


def test_a_folder_that_exists_stays_as_it_was(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "old").write_text("x")
    preflight(make_run(tmp_path / "runs"))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["old"]


def test_the_data_set_has_its_say(tmp_path):
    with pytest.raises(UserError, match="even"):
        preflight(make_run(tmp_path, n_classes=3))


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_results_path_that_is_a_file(tmp_path, place):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="through a file: give a folder"):
        preflight(make_run(tmp_path / place))
    assert (tmp_path / "file").read_text() == "precious"


def test_a_results_path_with_a_name_too_long(tmp_path):
    with pytest.raises(UserError, match="cannot write to --results_path"):
        check_writable(tmp_path / "a" / ("x" * 300))
    assert not any(tmp_path.iterdir())


def test_a_disk_without_room(tmp_path):
    with pytest.raises(UserError, match="make room"):
        check_writable(tmp_path / "runs", room_mib=2**40)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="that you may write to"):
        check_writable(tmp_path)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(("options", "says"), [("ro", "that you may write to"), ("size=256k", "make room")])
def test_a_disk_that_is_read_only_or_full(tmp_path, options, says):
    mount = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o {options} none "$0" && exec "$@"', str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no test mount a disk of its own")
    code = "import pathlib, sys; from pmi_cl.machine.disk import check_writable as c; c(pathlib.Path(sys.argv[1]))"
    found = subprocess.run(
        [*mount, sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "UserError: cannot write to --results_path" in found.stderr and says in found.stderr


@pytest.mark.parametrize("flag", ["loadcheck", "resume"])
def test_a_checkpoint_that_is_missing_or_truncated_or_whole(tmp_path, flag):
    path = tmp_path / "checkpoint.pt"
    run = make_run(tmp_path, **{flag: str(path if flag == "loadcheck" else tmp_path)}, n_classes=4)
    with pytest.raises(UserError, match=r"no checkpoint (at|to go on from)"):
        preflight(run)
    known = {**identity(run, Pairs), "seed": 0}
    between = {"position": {"task": 1, "phase": "begin", "epoch": 0, "step": 0}}
    checkpoints.save(path, {**known, "training": {**between, "t": torch.zeros(1000)}})
    preflight(run)
    if flag == "loadcheck":
        with pytest.raises(UserError, match="n_tasks 2, this run has n_tasks 1"):
            preflight(make_run(tmp_path, loadcheck=str(path)))
        with pytest.raises(UserError, match="nothing is left to train, it holds the last of 1 tasks"):
            preflight(make_run(tmp_path, loadcheck=str(path), n_classes=4, stop_after=1))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="truncated"):
        preflight(run)


@pytest.mark.parametrize(
    ("results", "how"),
    [
        (None, "ended before its first"),
        ('{"status": "failed"}', "is 'failed'"),
        ('{"status": "fin', "ended before its first"),
    ],
)
def test_a_run_without_a_checkpoint_cannot_be_resumed(tmp_path, results, how):
    if results:
        (tmp_path / "results.json").write_text(results)
    with pytest.raises(UserError) as caught:
        preflight(make_run(tmp_path, resume=str(tmp_path)))
    assert (
        str(caught.value)
        == f"{tmp_path} has no checkpoint to go on from (the run {how}): start it again, without --resume"
    )


def test_the_cpu_is_always_there():
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("text", ["cuda", "cuda:0", "0", "7", "cuda:-1", "tpu", ""])
def test_without_a_gpu_only_the_cpu_can_be_had(text):
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match=f"--device {text} is not in this machine: choose cpu$"):
        pick_device(text)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_by_each_of_its_names():
    assert {pick_device(text) for text in ("auto", "cuda", "cuda:0", "0")} == {torch.device("cuda", 0)}
    with pytest.raises(UserError, match="cpu or cuda:0"):
        pick_device("cuda:99")


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    preflight(make_run("~/runs"))
    assert not Path("~").exists() and not any(tmp_path.iterdir())
