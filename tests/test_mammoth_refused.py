"""Test mistakes with Mammoth: one line that says what is wrong, exit code 2."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from tests.support.mammoth_runs import FEW, STAND_IN, python, refused, run


def test_a_folder_that_is_not_mammoth(tmp_path: Path) -> None:
    assert "is no checkout of Mammoth (it lacks main.py)" in refused(tmp_path, "--mammoth_path", ".", "--model", "sgd")
    for words in ([], ["--mammoth_path="], ["--mammoth-path", "--lr", "1"]):
        assert "--mammoth_path is missing" in refused(tmp_path, *words, "--model", "sgd")


def test_a_mammoth_with_another_contract_and_one_whose_requirements_are_missing(
    mammoth_copy: Path, tmp_path: Path
) -> None:
    words = ["--mammoth_path", str(mammoth_copy), "--model", "sgd", "--dataset", "seq-digits"]
    file = mammoth_copy / "models/utils/__init__.py"
    file.write_text(file.read_text().replace("load_model_config", "load_config"))
    assert "has no models.utils.load_model_config: its contract differs from the snapshot of May 2026" in refused(
        tmp_path, *words
    )
    file.write_text("import a_package_that_nobody_has\n")
    line = refused(tmp_path, *words)
    assert "No module named 'a_package_that_nobody_has'" in line and "pip install -r" in line


def test_a_data_set_without_three_channels_is_refused_before_it_is_fetched(mammoth_copy: Path, tmp_path: Path) -> None:
    file = mammoth_copy / "datasets/seq_cifar100.py"
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
        tmp_path, "--mammoth_path", str(mammoth_copy), "--model", "pmi_rdfcil", "--dataset", "seq-cifar100", *FEW[2:]
    )
    assert line.endswith("seq-cifar100 does not normalise three channels: pmi-cl's networks take images with three")


MISTAKES = {
    "--backbone resnet32": "--backbone resnet32 is Mammoth's: pmi_rdfcil inverts",
    "--backbone clip-tiny": "--backbone clip-tiny: pmi_rdfcil needs a backbone of kind resnet",
    "--optimizer adam": "--optimizer adam does nothing for pmi_rdfcil",
    "--lr_scheduler cosine": "--lr_scheduler cosine does nothing for pmi_rdfcil",
    "--n_tasks 3": "10 classes do not split into 3 equal tasks",
    "--n_tasks 4": "or for tasks of different sizes --base_classes or --classes_per_task",
    "--classes_per_task 4,3,2": "--classes_per_task 4,3,2: these are 9 classes, the run has 10",
    "--classes_per_task 4,3,2,x": "argument --classes_per_task: '4,3,2,x': it must be a whole number",
    "--classes_per_task 4,3,3,0": "'4,3,3,0': it must be between 1 and 100000",
    "--classes_per_task 4,3,2,1 --base_classes 4": "both say how large tasks are, keep one",
    "--base_classes 10": "--base_classes 10: the run has 10 classes, and the first task must leave some",
    "--base_classes 4 --n_tasks 5": "do not split into 4 equal tasks: say --n_tasks 4 or 7",
    "--model lwf_mc --lr 0.1 --classes_per_task 4,3,2,1": "needs tasks of one size (models/lwf_mc.py, line",
    "--model lwf_mc --lr 0.1 --base_classes 4 --n_tasks 4": "this run has 4 tasks of 4, 2, 2, 2 classes",
    "--model sgd --lr 0.1 --classes_per_task 4,3,2,1 --label_perc 0.5": "--label_perc 0.5 needs tasks of one size",
    "--dataset seq-multi": "seq-multi does not run inside Mammoth",
    "--dataset seq-multi --domains seq-digits --model sgd --lr 0.1": "run it without Mammoth, pmi-cl --model MODEL",
    "--evaluate_unseen 1": "--evaluate_unseen belongs to pmi-cl's own runner",
    "--eval_future 1": "evaluated in pmi-cl's own runner, by --evaluate_unseen 1",
    "--run_name=x": "--run_name belongs to pmi-cl's own runner",
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
mammoth_host, *cases = sys.argv[1:]
found = {}
for words in cases:
    said = io.StringIO()
    usual = {"--model": "pmi_rdfcil", "--dataset": "seq-digits", "--num_workers": "0"}
    flags = {word.partition("=")[0] for word in words.split()}
    # Mammoth takes no flag twice.
    given = [word for flag, value in usual.items() if flag not in flags for word in (flag, value)]
    typed = ["mammoth", "--mammoth_path", mammoth_host, *given, *words.split()]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(typed)
        except SystemExit as leaving:
            code = leaving.code
    found[words] = [code, said.getvalue().strip().splitlines()[-1]]
print(json.dumps(found))
"""


def test_values_that_do_not_fit(mammoth_host: Path, tmp_path: Path) -> None:
    found = json.loads(python(tmp_path, TRY_ALL, str(mammoth_host), *MISTAKES))
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


def test_a_name_that_both_have_with_and_without_the_prefix(mammoth_copy: Path, tmp_path: Path) -> None:
    """Where Mammoth has an rdfcil of its own, ours must not take the name of our pmi_rdfcil.

    Another checkout has them all.
    """
    code = f"""
from pmi_cl.errors import UserError
from pmi_cl.mammoth import register
try:
    models = register({str(mammoth_copy)!r}).entries["model"]
    print({{name: entry.name for name, entry in models.items() if "rdfcil" in name}})
except UserError as error:
    print(error)
"""
    for name in ("rdfcil", "pmi_cl_rdfcil"):
        text = (mammoth_copy / "models/sgd.py").read_text()
        (mammoth_copy / f"models/{name}.py").write_text(text.replace('NAME = "sgd"', f'NAME = "{name}"'))
        said = python(tmp_path, code)
        if name == "rdfcil":
            assert ast.literal_eval(said) == {"pmi-rdfcil": "pmi_rdfcil", "pmi-cl-rdfcil": "rdfcil"}
    assert "has a model 'rdfcil' and every name that ours could take" in said


def test_without_a_method_it_says_how_it_is_used(tmp_path: Path) -> None:
    done = run(tmp_path, "mammoth", "--help")
    assert done.returncode == 0 and "pmi-resnet32, --pmi_lr_milestones" in done.stdout
