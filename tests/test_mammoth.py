"""Our methods, data sets and backbones inside Mammoth: a stand-in of our own, and a real checkout where MAMMOTH_PATH names one."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAND_IN = ROOT / "tests" / "mammoth_stand_in"
REAL = os.environ.get("MAMMOTH_PATH")
HOSTS = [
    "stand-in",
    pytest.param("real", marks=pytest.mark.skipif(not REAL, reason="MAMMOTH_PATH names no checkout of Mammoth")),
]
FEW = ["--train_per_class", "20", "--batch_size", "16", "--n_epochs", "1", "--seed", "0", "--num_workers", "0"]
SMALL = ["--model_config", "smoke", "--buffer_images", "40", "--inv_batch", "40", "--inv_steps", "2", *FEW]
ACCURACY = re.compile(r"^Accuracy for (\d+) task\(s\): .*\[Class-IL\]: ([\d.]+) %", re.MULTILINE)
RAW = re.compile(r"^\tRaw accuracy values: Class-IL (\[[^]]*\])", re.MULTILINE)


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Path:
    """The host's folder."""
    return STAND_IN if request.param == "stand-in" else Path(str(REAL))


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A copy of the stand-in, for what would have to be changed in it."""
    return Path(shutil.copytree(STAND_IN, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__")))


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name not in ("MAMMOTH_PATH", "PYTHONDONTWRITEBYTECODE")
    }
    path = os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    )  # CI puts other versions of libraries there
    return {**kept, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path, **more}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``pmi-cl ...`` in ``folder``."""
    command = [sys.executable, "-m", "pmi_cl", *words]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def mammoth(folder: Path, host: Path, *words: str) -> str:
    """What ``pmi-cl mammoth`` prints, which has to go well."""
    done = run(folder, "mammoth", "--mammoth_path", str(host), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def python(folder: Path, code: str, *words: str) -> str:
    """What a program prints, the last line first to be compared."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and its time."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if ".git" not in path.parts
    }


def raw(text: str) -> list[list[float]]:
    """The accuracy matrix, row by row."""
    return [ast.literal_eval(row) for row in RAW.findall(text)]


def test_a_method_and_a_data_set_of_ours_and_a_checkout_that_stays_as_it_was(host: Path, tmp_path: Path) -> None:
    before = contents(host)
    text = mammoth(
        tmp_path,
        host,
        "--model",
        "pmi_rdfcil",
        "--dataset",
        "seq-digits",
        *SMALL,
        "--savecheck",
        "task",
        "--ckpt_name",
        "x",
    )
    assert [int(task) for task, _ in ACCURACY.findall(text)] == [1, 2, 3, 4, 5]
    assert contents(host) == before
    assert (tmp_path / "data/results/class-il/seq-digits/pmi_rdfcil/logs.pyd").is_file()
    assert len(list((tmp_path / "checkpoints").glob("x*.pt"))) == 5


def test_a_run_goes_on_from_a_checkpoint_of_its_middle(host: Path, tmp_path: Path) -> None:
    """A relative path is meant from here. What was learned is there, and the rest is learned from it."""
    words = ["--model", "pmi_rdfcil", "--dataset", "seq-digits", *SMALL]
    first = raw(mammoth(tmp_path, host, *words, "--stop_after", "2", "--savecheck", "task"))
    newest = max((tmp_path / "checkpoints").glob("*_1.pt"))
    more = ["--start_from", "2", "--stop_after", "3", "--loadcheck", str(newest.relative_to(tmp_path))]
    again = mammoth(tmp_path, host, *words, *more)
    assert [len(row) for row in raw(again)] == [3]
    if host != STAND_IN:
        return  # Mammoth's checkpoints keep --savecheck, with which it refuses --inference_only
    shown = ["--start_from", "2", "--stop_after", "3", "--inference_only", "1", "--loadcheck", str(newest)]
    assert raw(mammoth(tmp_path, host, *words, *shown))[-1][:2] == first[-1]


def test_a_checkpoint_brings_its_settings(host: Path, tmp_path: Path) -> None:
    """Nothing is typed again, and the preset does not come back; the next tasks end as if the run had not been stopped."""
    words = [
        "--model",
        "pmi_rdfcil",
        "--dataset",
        "seq-digits",
        *SMALL,
        "--lr",
        "0.05",
        "--stop_after",
        "2",
        "--savecheck",
        "task",
    ]
    whole = raw(mammoth(tmp_path, host, *words))
    (first,) = (tmp_path / "checkpoints").glob("*_0.pt")
    assert (
        raw(mammoth(tmp_path, host, "--loadcheck", str(first), "--start_from", "1", "--stop_after", "2"))[-1]
        == whole[-1]
    )
    for typed, said in (
        ("2", "--start_from is 2: say --start_from 1"),
        (None, "--start_from is 0: say --start_from 1"),
    ):
        more = ["--start_from", typed] if typed else []
        assert said in refused(tmp_path, "--mammoth_path", str(host), "--loadcheck", str(first), *more)


def test_every_preset_of_every_method_is_one_for_mammoths_data_sets() -> None:
    from pmi_cl.mammoth.flags import preset_names, settings
    from pmi_cl.registry.catalogue import INSTALLED

    for entry in INSTALLED.entries("model"):
        for preset in preset_names(entry):
            for dataset in ("seq-cifar100", "seq-cifar10"):
                assert settings(entry, dataset, None, preset)["backbone"]


def test_a_preset_of_ones_own(host: Path, tmp_path: Path) -> None:
    """By a path that is meant from here."""
    (tmp_path / "mine.yaml").write_text("lr: 0.0625\nlr_milestones: [0.25]\n")
    code = """
import sys
from pmi_cl.mammoth import register
from pmi_cl.mammoth.launch import launch
register(sys.argv[1])
import utils.training
utils.training.train = lambda model, dataset, args: print(args.lr, args.pmi_lr_milestones, args.base_path)
launch(["--mammoth_path", *sys.argv[1:]])
"""
    words = ["--model", "pmi-sgd", "--dataset", "seq-digits", "--model_config=mine.yaml", *FEW]
    assert python(tmp_path, code, str(host), *words).startswith("0.0625 (0.25,) ")


def test_a_method_of_ours_on_a_data_set_of_mammoths(host: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    words = [
        "--model",
        "pmi_rdfcil",
        "--dataset",
        "seq-cifar100",
        "--stop_after",
        "3",
        "--model_config",
        "smoke",
        "--inv_steps",
        "2",
        *FEW[2:],
    ]
    if host == STAND_IN:
        words += ["--buffer_images", "40", "--inv_batch", "40"]
    else:  # real images; six steps an epoch
        (tmp_path / "data").mkdir()
        (tmp_path / "data/CIFAR100").symlink_to(request.getfixturevalue("cifar100_dir"))
        words += ["--base_path", "data", "--dataset_config", "5tasks", "--debug_mode", "1", "--backbone", "resnet20"]
        words += ["--buffer_images", "200", "--inv_batch", "200", "--cont_epochs", "1"]
    assert [len(row) for row in raw(mammoth(tmp_path, host, *words))] == [1, 2, 3]


def test_what_mammoth_does_to_its_data_reaches_our_methods(tmp_path: Path) -> None:
    """Another order of the classes, and evaluations before a task that a head which grows cannot yet answer."""
    words = ["--model", "pmi-sgd", *FEW[2:], "--permute_classes", "1", "--enable_other_metrics", "1"]
    for dataset in ("seq-cifar100", "seq-digits"):
        assert [len(row) for row in raw(mammoth(tmp_path, STAND_IN, *words, "--dataset", dataset))] == [1, 2, 3, 4, 5]


@pytest.mark.skipif(REAL is None, reason="needs MAMMOTH_PATH")
@pytest.mark.parametrize("model", ["icarl", "er", "ewc_on", "lwf"])
def test_methods_of_mammoths_that_look_into_a_data_set(model: str, tmp_path: Path) -> None:
    more = {
        "icarl": ["--buffer_size", "50"],
        "er": ["--buffer_size", "50"],
        "ewc_on": ["--e_lambda", "10", "--gamma", "1"],
    }
    text = mammoth(tmp_path, Path(str(REAL)), "--model", model, "--dataset", "seq-digits", *more.get(model, []), *FEW)
    assert len(ACCURACY.findall(text)) == 5


@pytest.mark.parametrize("model", ["pmi-sgd", "rdfcil", "zsclip", "vpt", "pmi_moe"])
def test_every_kind_of_method_runs(model: str, host: Path, tmp_path: Path) -> None:
    """``sgd`` is the host's own. A CLIP gets its images in its own form, whatever the host's loader makes of them; zsclip trains none."""
    words = {
        "rdfcil": ["--generator_steps", "2", *FEW],
        "zsclip": ["--backbone", "clip-tiny", *FEW[:4]],
        "vpt": ["--backbone", "clip-tiny", *FEW],
        "pmi_moe": ["--backbone", "clip-tiny", "--pmi_steps", "2", "--inv_steps", "2", "--cont_epochs", "2", *FEW],
    }
    text = mammoth(tmp_path, host, "--model", model, "--dataset", "seq-digits", *words.get(model, FEW))
    found = ACCURACY.findall(text)
    assert len(found) == 5 and (model != "zsclip" or float(found[-1][1]) > 70)


def test_a_method_of_mammoths_on_our_data_set_and_backbone(host: Path, tmp_path: Path) -> None:
    """The values that it has none of its own for are those of our fine-tuning: no --lr is asked for."""
    rehearsal = ["--model", "derpp", "--buffer_size", "50", "--alpha", "0.3", "--beta", "0.5"]
    assert len(ACCURACY.findall(mammoth(tmp_path, host, *rehearsal, "--dataset", "seq-digits", *FEW))) == 5


def test_help_has_our_flags_with_the_preset_s_values(host: Path, tmp_path: Path) -> None:
    words = ["--model", "pmi_rdfcil", "--dataset", "seq-digits", "--help"]
    best = " ".join(mammoth(tmp_path, host, *words).split())
    paper = " ".join(mammoth(tmp_path, host, *words, "--model_config", "paper").split())
    assert (
        "steps of the full-model stage (steps; between 1 and 1000000; default: 300; source: PMI appendix I.1)" in best
    )
    assert "default: 280" in paper
    for flag in (
        "--pmi_lr_milestones",
        "--pmi_class_order",
        "--n_tasks",
        "--precision",
        "{default,paper,code,rdfcil,best,smoke,none}",
    ):
        assert flag in best


WEIGHTS = """
import sys
from pmi_cl.mammoth import register
bridge = register(sys.argv.pop())
assert register() is bridge
sys.argv = ["main.py", "--model", "pmi_rdfcil", "--dataset", "seq-digits", "--seed", "5"]
import main
from pmi_cl.models.resnet.pmi_rdfcil import PmiRdfcil
hosted, dataset, args = main.initialize()
assert type(hosted.method) is PmiRdfcil and hosted.method.net is hosted.net
print(sum(float(p.double().abs().sum()) for p in hosted.net.parameters()))
"""

OURS = """
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.run.runner import build_model
from pmi_cl.registry import catalogue
resolved = resolve(["--model", "pmi_rdfcil", "--dataset", "seq-digits", "--seed", "5"])
model = build_model(resolved, catalogue.load("dataset", "seq-digits")(resolved.args, "cpu"))
print(sum(float(p.double().abs().sum()) for p in model.net.parameters()))
"""


def test_it_is_the_same_class_with_the_same_weights_in_both_worlds(host: Path, tmp_path: Path) -> None:
    """One implementation, and one policy of seeds: a network's first weights depend on the seed alone."""
    assert python(tmp_path, WEIGHTS, str(host)) == python(tmp_path, OURS)


@pytest.mark.parametrize("more", [[], ["--model", "vpt", "--backbone", "clip-tiny"]], ids=["pmi_rdfcil", "vpt"])
def test_on_a_data_set_of_ours_a_run_ends_as_in_our_own_runner(more: list[str], tmp_path: Path) -> None:
    """The same images in the same order and crops, the same random numbers: the same accuracies, to the last digit."""
    small = ["--n_epochs", "2", "--train_per_class", "20", "--batch_size", "16", "--seed", "3", "--lr", "0.05"]
    inverted = ["--buffer_images", "40", "--inv_batch", "40", "--inv_steps", "5", "--cont_epochs", "5"]
    words = [*(more or ["--model", "pmi_rdfcil", *inverted]), "--dataset", "seq-digits", *small]
    own = run(tmp_path, *words, "--num_threads", "1", "--run_name", "own")
    assert own.returncode == 0, own.stderr
    (record,) = tmp_path.glob("runs/*/seq-digits/own/results.json")
    expected = json.loads(record.read_text())["class_il"]["matrix"]
    assert max(expected[-1]) > 15 and raw(mammoth(tmp_path, STAND_IN, *words)) == expected


def test_a_script_inside_mammoth_registers_with_one_line(host: Path, tmp_path: Path) -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(host)!r})
from pmi_cl.mammoth import register
register()
import models, datasets, backbone
print(sorted({{"pmi-rdfcil", "seq-digits", "pmi-resnet32", "pmi-seq-cifar100", "pmi-sgd"}}
    & {{*models.REGISTERED_MODELS, *datasets.REGISTERED_DATASETS, *backbone.REGISTERED_BACKBONES}}))
"""
    assert python(tmp_path, code) == "['pmi-rdfcil', 'pmi-resnet32', 'pmi-seq-cifar100', 'pmi-sgd', 'seq-digits']"


def test_a_script_leaves_its_results_where_it_is(host: Path, tmp_path: Path) -> None:
    """Importing Mammoth makes its checkout the current folder."""
    code = """
import sys
from pmi_cl.mammoth import register
register(sys.argv.pop(1))
sys.argv[0] = "main.py"
import main
from utils.training import train
train(*main.initialize())
print("done")
"""
    before = {path for path in host.rglob("*") if path.name != "__pycache__" and path.parent.name != "__pycache__"}
    assert (
        python(tmp_path, code, str(host), "--model", "pmi-sgd", "--dataset", "seq-digits", *FEW, "--stop_after", "1")
        == "done"
    )
    assert (tmp_path / "data/results/class-il/seq-digits/pmi_sgd/logs.pyd").is_file()
    assert {
        path for path in host.rglob("*") if path.name != "__pycache__" and path.parent.name != "__pycache__"
    } == before


# Mistakes: one line, exit code 2.


def refused(folder: Path, *words: str) -> str:
    done = run(folder, "mammoth", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("pmi-cl: error: ") or last.startswith("main.py: error: "), done.stderr
    return last


def test_a_folder_that_is_not_mammoth(tmp_path: Path) -> None:
    assert "is no checkout of Mammoth (it lacks main.py)" in refused(tmp_path, "--mammoth_path", ".", "--model", "sgd")
    for words in ([], ["--mammoth_path="], ["--mammoth-path", "--lr", "1"]):
        assert "--mammoth_path is missing" in refused(tmp_path, *words, "--model", "sgd")


def test_a_mammoth_with_another_contract_and_one_whose_requirements_are_missing(
    read_only: Path, tmp_path: Path
) -> None:
    words = ["--mammoth_path", str(read_only), "--model", "sgd", "--dataset", "seq-digits"]
    file = read_only / "models/utils/__init__.py"
    file.write_text(file.read_text().replace("load_model_config", "load_config"))
    assert "has no models.utils.load_model_config: its contract differs from the snapshot of May 2026" in refused(
        tmp_path, *words
    )
    file.write_text("import a_package_that_nobody_has\n")
    line = refused(tmp_path, *words)
    assert "No module named 'a_package_that_nobody_has'" in line and "pip install -r" in line


def test_a_data_set_without_three_channels_is_refused_before_it_is_fetched(read_only: Path, tmp_path: Path) -> None:
    file = read_only / "datasets/seq_cifar100.py"
    grey = (
        file.read_text()
        .replace("return transforms.Normalize(SeqNoise.MEAN, SeqNoise.STD)", "return None")
        .replace("MEAN", "OTHER")
    )
    file.write_text(
        grey.replace(
            "def get_data_loaders(self):", "def get_data_loaders(self):\n        raise SystemExit('fetched')\n"
        )
    )
    line = refused(
        tmp_path, "--mammoth_path", str(read_only), "--model", "pmi_rdfcil", "--dataset", "seq-cifar100", *FEW[2:]
    )
    assert line.endswith("seq-cifar100 does not normalise three channels: pmi-cl's networks take images with three")


MISTAKES = {
    "--backbone resnet32": "--backbone resnet32 is Mammoth's: pmi_rdfcil inverts",
    "--backbone clip-tiny": "--backbone clip-tiny: pmi_rdfcil needs a backbone of kind resnet",
    "--optimizer adam": "--optimizer adam does nothing for pmi_rdfcil",
    "--lr_scheduler cosine": "--lr_scheduler cosine does nothing for pmi_rdfcil",
    "--n_tasks 3": "--n_tasks 3 does not divide the 10 classes",
    "--buffer_images 3": "--buffer_images 3: give at least 20",
    "--inv_steps 0": "--inv_steps: '0': it must be between 1 and",
    "--model_config bst": "unknown preset 'bst': did you mean best",
    "--lr_milestones 1 2": "--lr_milestones [1, 2] does nothing for pmi_rdfcil: say --pmi_lr_milestones",
    "--class_order np1993": "--class_order: say --pmi_class_order",
    "--model sgd --backbone clip:ViT-B-32": "--backbone clip:ViT-B-32 has no classifier",
    "--model vpt --backbone clip:vit-b-32 --precision fp64": "argument --precision",
    "--model pmi_rdfcli": "unknown model 'pmi_rdfcli': did you mean pmi_rdfcil",
    "--dataset=seq-digist": "unknown data set 'seq-digist': did you mean seq-digits",
    "--backbone pmi_resnet23": "unknown backbone 'pmi_resnet23': did you mean pmi-resnet32",
    "--flurb 1": "unrecognized arguments: --flurb 1",
    "--batch_size 1000": "has fewer images than a batch: give --drop_last 0",
    "--lr 0.1 --lr=0.2": "--lr is typed twice: give it once",
    "--model pmi_vpt --synthetic_last_task 1": "Mammoth's loop hands out images: use pmi-cl itself",
}

TRY_ALL = """
import contextlib, io, json, sys
from pmi_cl.cli import main
host, *cases = sys.argv[1:]
found = {}
for words in cases:
    said = io.StringIO()
    usual = {"--model": "pmi_rdfcil", "--dataset": "seq-digits", "--num_workers": "0"}
    flags = {word.partition("=")[0] for word in words.split()}
    given = [word for flag, value in usual.items() if flag not in flags for word in (flag, value)]  # Mammoth takes no flag twice
    typed = ["mammoth", "--mammoth_path", host, *given, *words.split()]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(typed)
        except SystemExit as leaving:
            code = leaving.code
    found[words] = [code, said.getvalue().strip().splitlines()[-1]]
print(json.dumps(found))
"""


def test_values_that_do_not_fit(host: Path, tmp_path: Path) -> None:
    found = json.loads(python(tmp_path, TRY_ALL, str(host), *MISTAKES))
    for typed, said in MISTAKES.items():
        code, line = found[typed]
        assert code == 2 and said in line, (typed, line)


def test_a_name_that_something_else_has_already(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("")
    code = f"""
import models
from pmi_cl.errors import UserError
from pmi_cl.mammoth import register
try:
    register({str(STAND_IN)!r})
except UserError as error:
    print(error)
"""
    assert python(tmp_path, code).startswith("'models' is already imported from")


def test_a_name_that_both_have_with_and_without_the_prefix(read_only: Path, tmp_path: Path) -> None:
    """A Mammoth that has an rdfcil of its own: ours must not take the name of our pmi_rdfcil. And one that has them all."""
    code = f"""
from pmi_cl.errors import UserError
from pmi_cl.mammoth import register
try:
    print({{name: entry.name for name, entry in register({str(read_only)!r}).entries["model"].items() if "rdfcil" in name}})
except UserError as error:
    print(error)
"""
    for name in ("rdfcil", "pmi_cl_rdfcil"):
        text = (read_only / "models/sgd.py").read_text()
        (read_only / f"models/{name}.py").write_text(text.replace('NAME = "sgd"', f'NAME = "{name}"'))
        said = python(tmp_path, code)
        if name == "rdfcil":
            assert ast.literal_eval(said) == {"pmi-rdfcil": "pmi_rdfcil", "pmi-cl-rdfcil": "rdfcil"}
    assert "has a model 'rdfcil' and every name that ours could take" in said


def test_without_a_method_it_says_how_it_is_used(tmp_path: Path) -> None:
    done = run(tmp_path, "mammoth", "--help")
    assert done.returncode == 0 and "pmi-resnet32, --pmi_lr_milestones" in done.stdout
