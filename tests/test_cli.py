"""The command line: what it resolves to, and mistakes in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pmi_cl
from pmi_cl import cli
from pmi_cl.cli import main
from pmi_cl.registry.catalogue import INSTALLED, Catalogue, Entry, entries
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.arguments.presets import presets_of
from tests.support.child_processes import half_a_torch, processor_seconds
from tests.support.sample_registry import PROMPTS, RUN, printed, record


def test_resolves_names_values_and_sources(catalogue: Catalogue) -> None:
    resolved = resolve(
        ["--model", "INVERT-IT", "--dataset=seq_hundred", "--lr", "0.5", "--shift", "-1e-1", "--device", "1"], catalogue
    )
    args = resolved.args
    assert (args.model, args.dataset, args.backbone) == ("invert_it", "seq-hundred", "net-big")
    assert (resolved.model.name, resolved.dataset.name, resolved.backbone.attribute) == (
        "invert_it",
        "seq-hundred",
        "big",
    )
    assert (args.lr, args.shift, args.device, args.n_tasks, args.class_order) == (0.5, -0.1, "cuda:1", 10, "default")
    assert (resolved.sources["lr"], resolved.sources["n_tasks"]) == ("flag", "data set")
    assert set(vars(args)) == set(resolved.sources)


def test_the_backbones_options_are_resolved(catalogue: Catalogue) -> None:
    resolved = resolve([*PROMPTS, "--backbone", "VIT:two_1", "--weights", "mine"], catalogue)
    assert (resolved.args.backbone, resolved.args.weights, resolved.backbone.attribute) == (
        "vit:Two-1",
        "mine",
        "any_vit",
    )
    assert (resolved.sources["backbone"], resolved.sources["weights"]) == ("flag", "flag")
    again = record(resolved, "one")
    assert resolve(["--resume", str(again)], catalogue).args.weights == "mine"


@pytest.mark.parametrize("typed", [["1,2,3"], ["1", "2", "3"]])
def test_a_tuple_is_typed_with_commas_or_blanks(catalogue: Catalogue, typed: list[str]) -> None:
    assert resolve([*RUN, "--milestones", *typed], catalogue).args.milestones == (1, 2, 3)


@pytest.mark.parametrize(
    ("n_tasks", "n_classes"),
    [("1", None), ("4", None), ("5", None), ("20", None), ("50", None), ("100", None), ("3", "9")],
)
def test_n_tasks_that_divide_are_taken(catalogue: Catalogue, n_tasks: str, n_classes: str | None) -> None:
    flags = ["--n_tasks", n_tasks] + (["--n_classes", n_classes] if n_classes else [])
    assert resolve([*RUN, *flags], catalogue).args.n_tasks == int(n_tasks)


def test_a_folder_of_images_checks_its_tasks_itself(catalogue: Catalogue) -> None:
    resolved = resolve(["--model", "finetune", "--dataset", "seq-folder"], catalogue)
    assert resolved.args.n_tasks is None


MISTAKES = [
    (["--hlep"], "unknown flag '--hlep': did you mean --help"),
    (["-\u2013model", "finetune"], "'-\u2013model' begins with a long dash: write --model, with two short ones"),
    (["\u2014model", "finetune"], "'\u2014model' begins with a long dash: write --model"),
    (["--lr", "1", "--milestones", "1", "2"], "--model is missing"),
    ([], "--model is missing: choose a model from finetune, invert_it, prompts"),
    (["--model", "finetune"], "--dataset is missing: choose a data set from seq-folder, seq-hundred"),
    (["--model", "finetun", "--dataset", "seq-hundred"], "unknown model 'finetun': did you mean finetune"),
    (["--model", "finetune", "--dataset", "seq-hunderd"], "unknown data set 'seq-hunderd': did you mean seq-hundred"),
    ([*RUN, "--backbone", "net-bog"], "unknown backbone 'net-bog': did you mean net-big"),
    ([*RUN, "--backbone", "none"], "--backbone is missing: choose a backbone from net-big, net-small, vit-b, vit:NAME"),
    (
        [*RUN, "--backbone", "vit-b"],
        "--backbone vit-b: invert_it needs a backbone of kind resnet: choose from net-big, net-small",
    ),
    (
        [*PROMPTS, "--backbone", "net-big"],
        "--backbone net-big: prompts needs a backbone of kind vit: choose from vit-b, vit:NAME",
    ),
    ([*PROMPTS, "--backbone", "vit:Two"], "unknown backbone 'vit:Two': did you mean vit:Two-1"),
    ([*PROMPTS, "--weight", "x"], "unknown flag '--weight': did you mean --weights"),
    ([*RUN, "--weights", "x"], "--weights is no flag of this run: it belongs to vit-b, vit:NAME"),
    ([*RUN, "--model_config", "papper"], "unknown preset 'papper': did you mean paper?"),
    ([*RUN, "--model_config", "wrong-key"], "unknown key 'n_epoch': did you mean n_epochs"),
    (
        ["--model", "finetune", "--dataset", "seq-hundred", "--model_config", "paper"],
        "unknown preset 'paper': choose from none",
    ),
    ([*RUN, "--n_tasks", "7"], "100 classes do not split into 7 equal tasks: say --n_tasks 5 or 10, or"),
    ([*RUN, "--n_tasks", "1000"], "100 classes do not split into 1000 equal tasks: say --n_tasks 100, or"),
    ([*RUN, "--n_tasks", "0"], "--n_tasks 0: it must be between 1 and 100000"),
    ([*RUN, "--n_tasks", "-1"], "--n_tasks -1: it must be between 1 and 100000"),
    ([*RUN, "--n_tasks", "2.5"], "--n_tasks 2.5: it must be a whole number"),
    ([*RUN, "--n_classes", "15"], "15 classes do not split into 10 equal tasks: say --n_tasks 5 or 15, or"),
    ([*RUN, "--n_classes", "200"], "--n_classes 200: seq-hundred has 100 classes"),
    ([*RUN, "--stop_after", "11"], "--stop_after 11: the run has 10 tasks"),
    ([*RUN, "--lr", "0"], "--lr 0: it must be above 0"),
    ([*RUN, "--lr", "-1"], "--lr -1: it must be above 0"),
    ([*RUN, "--lr", "-1e-3"], "--lr -1e-3: it must be above 0"),
    ([*RUN, "--lr", "nan"], "--lr nan: it must be a finite number"),
    ([*RUN, "--lr", "-inf"], "--lr -inf: it must be a finite number"),
    ([*RUN, "--lr", "fast"], "--lr fast: it must be a finite number"),
    ([*RUN, "--lr", ""], "--lr : it must be a finite number"),
    ([*RUN, "--lr"], "--lr: expected one argument"),
    ([*RUN, "--lr", "0.1", "0.2"], "'0.2' stands alone: write --flag value"),
    *[
        ([*RUN, f"--{flag}", bad], f"--{flag} {bad}: it must be ")
        for flag in ("n_epochs", "batch_size", "steps")
        for bad in ("0", "-3", "nan")
    ],
    ([*RUN, "--start", "pmy"], "--start pmy: choose from noise, pmi"),
    ([*RUN, "--shift", "2.01"], "--shift 2.01: it must be between -2 and 2"),
    ([*RUN, "--milestones", "1,x"], "--milestones 1,x: it must be a whole number"),
    ([*RUN, "--cfs", "yes"], "--cfs yes: it must be 0 or 1"),
    ([*RUN, "--seed", "-1"], "--seed -1: it must be between 0 and 4294967295"),
    ([*RUN, "--checkpoint_minutes", "0"], "--checkpoint_minutes 0: it must be above 0"),
    ([*RUN, "--savecheck", "lst"], "--savecheck lst: choose from none, last, task"),
    ([*RUN, "--results_path", ""], "--results_path : it must be a text that is not empty"),
    ([*RUN, "--run_name", "../x"], "--run_name ../x: it must be the plain name of a folder"),
    ([*RUN, "--run_name", "a,b"], "it must be the plain name of a folder, of letters, digits, blanks and . - _ + = @"),
    ([*RUN, "--run_name", "x" * 300], "it has 300 letters, too many for a folder; at most 240"),
    *[
        ([*RUN, "--device", bad], f"--device {bad}: write auto, cpu, cuda, cuda:N or N")
        for bad in ("gpu", "cuda:", "0,1", "cuda:-1", "-1")
    ],
    ([*RUN, "--batchsize", "3"], "unknown flag '--batchsize': did you mean --batch_size"),
    ([*RUN, "--lrr", "3"], "unknown flag '--lrr': did you mean --lr"),
    ([*RUN, "--n-epochs", "3"], "unknown flag '--n-epochs': did you mean --n_epochs"),
    ([*RUN, "--n_epo", "3"], "unknown flag '--n_epo': did you mean --n_epochs"),
    ([*RUN, "--chekc"], "unknown flag '--chekc': did you mean --check?"),
    ([*RUN, "--zzzzzz", "3"], "unknown flag '--zzzzzz': --help with this model and data set lists the flags"),
    (
        ["--model", "finetune", "--dataset", "seq-hundred", "--cfs", "0"],
        "--cfs is no flag of this run: it belongs to invert_it",
    ),
    ([*RUN, "--milestones", ""], "--milestones : write values with commas between them, or none"),
    ([*RUN, "--lr", "1", "--lr", "1"], "--lr is given twice: keep one"),
    ([*RUN, "--model", "finetune"], "--model is given twice: keep one"),
    ([*RUN, "--resume", "gone"], "there is no run below runs"),
    ([*RUN, "--resume", ""], "--resume '': give the folder of a run"),
    (["--resume", " "], "--resume '': give the folder of a run"),
    (["--resume", "one", "--results_path", ""], "--results_path '': give the folder of the runs"),
    (["--help", "--model", "finetun"], "unknown model 'finetun': did you mean finetune"),
]


@pytest.mark.parametrize(("argv", "message"), MISTAKES, ids=[" ".join(argv[-2:]) for argv, _ in MISTAKES])
@pytest.mark.parametrize("control", [[], ["--check"]], ids=["run", "check"])
def test_a_mistake_is_one_line_and_writes_nothing(
    argv: list[str], message: str, control: list[str], catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, *control], catalogue) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("pmi-cl: error: ") and message in err
    assert list(Path.cwd().iterdir()) == []


def test_a_message_of_several_lines_is_printed_as_one(catalogue: Catalogue, capsys: pytest.CaptureFixture[str]) -> None:
    (catalogue.reader.folders[0] / "models/config/invert_it.yaml").write_text("paper: [1, 2")
    assert main(RUN, catalogue) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupt_before_the_run_is_130() -> None:
    class Interrupted(Catalogue):
        def entries(self, kind: str) -> tuple[Entry, ...]:
            raise KeyboardInterrupt

    assert main(RUN, Interrupted([])) == 130


def test_two_owners_of_one_flag_are_refused(catalogue: Catalogue, capsys: pytest.CaptureFixture[str]) -> None:
    path = catalogue.reader.folders[0] / "models/finetune.py"
    path.write_text(path.read_text().replace("    lr: float", "    seed: int = option(0, 'clashes')\n    lr: float"))
    assert main(RUN, catalogue) == 2
    assert "option 'seed' is already one of the run" in capsys.readouterr().err


def test_version(catalogue: Catalogue, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(["--version"], catalogue, capsys) == f"pmi-cl {pmi_cl.__version__}"


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own.

    Its last line of output says whether torch was imported.
    """
    code = "import sys; from pmi_cl.cli import main; code = main(sys.argv[1:]); "
    code += "print('torch' in sys.modules); sys.exit(code)"
    return subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["--help"], 0), (["--list"], 0), (["--version"], 0), (["--model", "nothing"], 2)]
    + [(["--help", "--model", entry.name], 0) for entry in entries("model")]
    + [(["--help", "--dataset", entry.name], 0) for entry in entries("dataset")],
)
def test_answers_in_no_time_without_torch(argv: list[str], code: int) -> None:
    started = processor_seconds()
    done = command(*argv)
    spent = processor_seconds() - started
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
    assert spent < half_a_torch()


def test_a_closed_pipe_is_not_a_traceback() -> None:
    script = f"{sys.executable} -m pmi_cl --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.stdout.strip() in ("0", "141") and done.stderr == ""


@pytest.mark.parametrize("model", [entry.name for entry in entries("model")])
def test_every_registered_model_lists_its_presets(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[:2] for line in out.splitlines()]
    assert all([model, preset] in rows for preset in presets_of(model, INSTALLED).presets)


@pytest.mark.parametrize("model", [entry.name for entry in entries("model")])
def test_check_prints_every_value_with_its_source(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model", model, "--dataset", "seq-digits", "--results_path", str(tmp_path), "--seed", "3"]
    if INSTALLED.find("model", model).constants.get("BACKBONE_KIND") == "clip":
        argv += ["--backbone", "clip-tiny"]  # the others' weights may not be at hand
    assert main([*argv, "--check"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert last.startswith("estimate: ")
    rows = {line.split()[0]: line.split() for line in table}
    assert set(rows) == set(vars(resolve(argv).args))
    assert rows["seed"] == ["seed", "3", "flag"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--list"],
        ["--model", "sgd", "--dataset", "seq-digits"],
        ["--model", "sgd", "--dataset", "seq-digits", "--check"],
    ],
)
def test_a_python_without_our_requirements_is_told_what_to_do(words: list[str], tmp_path: Path) -> None:
    """The environment is not activated.

    The error names what is missing, for which Python, and what to type.
    """
    root = Path(__file__).resolve().parents[1]
    bare = "import sys; sys.modules.update(dict.fromkeys(['torch', 'yaml', 'numpy'])); "  # as if they were not there
    script = bare + f"sys.path.insert(0, {str(root)!r}); from pmi_cl.cli import main; raise SystemExit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"is not installed for {sys.executable}: activate the environment" in line and "-m pip install" in line


def test_a_missing_module_of_our_own_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object, **named: object) -> int:
        raise ModuleNotFoundError("No module named 'pmi_cl.gone'", name="pmi_cl.gone")

    monkeypatch.setattr(cli, "_command", broken)
    with pytest.raises(ModuleNotFoundError):
        cli.main([])
