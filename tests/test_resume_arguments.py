"""--resume on the command line: the arguments of the record, and what may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.errors import UserError
from pmi_cl.registry.catalogue import INSTALLED, Catalogue
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.arguments.resumed_arguments import changes
from tests.support.sample_registry import RUN, record


def test_resume_takes_the_arguments_of_the_record(catalogue: Catalogue) -> None:
    first = resolve([*RUN, "--lr", "0.25", "--milestones", "3,4", "--stop_after", "2"], catalogue)
    folder = record(first, "one")
    resumed = resolve(["--resume", "invert_it/seq-hundred/one", "--device", "CPU", "--stop_after", "none"], catalogue)
    assert Path(resumed.args.resume).resolve() == folder.resolve()
    changed = {"resume": resumed.args.resume, "device": "cpu", "stop_after": None}
    assert vars(resumed.args) == vars(first.args) | changed
    assert resumed.sources == first.sources | dict.fromkeys(changed, "flag")
    assert resumed.backbone == first.backbone


def test_resume_takes_a_repeated_command_line(catalogue: Catalogue) -> None:
    record(resolve([*RUN, "--lr", "0.25"], catalogue), "one")
    assert resolve(["--model", "INVERT-IT", "--lr", "0.250", "--resume", "one"], catalogue).args.lr == 0.25


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "0.3"], "--lr 0.3: the run that goes on has 0.25; leave --lr out, or start a new run"),
        (
            ["--loadcheck", "x"],
            "--loadcheck x: the run that goes on has no --loadcheck; leave --loadcheck out, or start a new run",
        ),
        (["--model", "finetune"], "--model finetune: the run that goes on has invert_it"),
        (["--lr", "nan"], "--lr nan: it must be a finite number"),
        (["--lrr", "1"], "unknown flag '--lrr'"),
        (["--device", "gpu"], "--device gpu: write auto"),
    ],
)
def test_resume_refuses_to_make_it_another_run(catalogue: Catalogue, flags: list[str], message: str) -> None:
    record(resolve([*RUN, "--lr", "0.25"], catalogue), "one")
    with pytest.raises(UserError) as caught:
        resolve(["--resume", "one", *flags], catalogue)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"args": 3}',
        '{"args": {"lr": 1}}',
        '{"args": {"model": {"value": 3, "source": "flag"}}}',
        "[" * 100000,
    ],
)
def test_resume_refuses_a_damaged_record(catalogue: Catalogue, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = record(resolve(RUN, catalogue), "one")
    (folder / "args.json").write_text(text)
    assert main(["--resume", "one"], catalogue) == 2
    assert "args.json is damaged or not a run's args.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"new_option": 1}, "written by another version of pmi-cl (it has: new_option)"),
        ({"lr": -1}, "lr -1: it must be above 0"),
        ({"lr": None}, "lr None: it needs a value"),
        ({"model": "gone"}, "unknown model 'gone'"),
        ({"n_tasks": 7}, "100 classes do not split into 7 equal tasks"),
    ],
)
def test_resume_checks_the_record(catalogue: Catalogue, changed: dict[str, object], message: str) -> None:
    record(resolve(RUN, catalogue), "one", **changed)
    with pytest.raises(UserError) as caught:
        resolve(["--resume", "one"], catalogue)
    assert message in str(caught.value)


def test_weights_may_have_moved_when_a_run_goes_on() -> None:
    (spec,) = (spec for spec in INSTALLED.find("backbone", "clip-vit-b-16").options if spec.name == "clip_weights")
    assert changes({"clip_weights": "old/b.pt"}, {"clip_weights": "new/b.pt"}, [spec]) == {"clip_weights": "new/b.pt"}
