"""One process at a time in a run's folder, and nothing lost when one dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.errors import UserError
from pmi_cl.utils.records.run_lock import run_lock
from pmi_cl.utils.run import training
from tests.support.command_runs import place_in, quick, results_in
from tests.support.run_figures import same_figures


class Killed(BaseException):
    """Stands for a SIGKILL: nothing of ours is saved after it."""


def die_in_the_second_task(self: training.Training) -> None:
    """Raise :class:`Killed` in the training of the second task."""
    if self.position.task == 1:
        raise Killed
    trained(self)


trained = training.Training._train


@pytest.fixture(scope="module", params=["last", "none"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that died in its second task."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training.Training, "_train", die_in_the_second_task)
        quick("sgd", runs, "killed", "--savecheck", request.param)
    (folder,) = runs.glob("sgd/seq-digits/killed")
    return folder


def test_a_run_that_dies_has_lost_no_task(killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert place_in(killed)[0]["task"] == 1
    with run_lock(killed):
        for control in ([], ["--check"]):
            capsys.readouterr()
            assert main(["--resume", str(killed), *control]) == 2
            said = f"pmi-cl: error: {killed} is being run by another process: "
            said += "wait for its end, or stop it, then --resume goes on\n"
            assert capsys.readouterr() == ("", said)
    assert main(["--resume", str(killed)]) == 0
    _, whole = quick("sgd", tmp_path, "whole", "--savecheck", "none")
    assert same_figures(results_in(killed), results_in(whole)) and not (whole / "checkpoint.pt").exists()


def test_a_record_that_may_only_be_read_is_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def denied(path: Path, *_: object) -> None:
        seen.append(path.name)
        raise PermissionError

    (tmp_path / "args.json").write_text("{}")
    monkeypatch.setattr(Path, "open", denied)
    with run_lock(tmp_path), run_lock(tmp_path):
        seen.append("body")
    assert seen == ["args.json", "args.json", "body"]


def test_the_lock_goes_with_its_body(tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text("{}")
    with run_lock(tmp_path), pytest.raises(UserError, match="being run by another process"), run_lock(tmp_path):
        pass
    with run_lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["args.json"]


def test_a_name_that_is_taken_is_told(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = quick("sgd", killed.parents[2], "killed")
    assert code == 0 and capsys.readouterr().err == "--run_name killed is taken: this run is called killed-2\n"


def test_a_checkpoint_of_all_tasks_is_no_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = quick("sgd", tmp_path, "whole")
    capsys.readouterr()
    assert quick("sgd", tmp_path, "again", "--loadcheck", str(folder / "checkpoint.pt"))[0] == 2
    assert (
        "nothing is left to train, it holds the last of 2 tasks: give the checkpoint of an earlier task"
        in capsys.readouterr().err
    )
    assert not (folder.parent / "again").exists()
