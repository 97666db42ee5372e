"""Test mistakes with Mammoth: one line that says what is wrong, exit code 2."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch

from tests.support.mammoth_runs import FEW, REAL, ROOT, STAND_IN, python, refused, run


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
    "--classes_per_task 4,3,2,x": "--classes_per_task 4,3,2,x: it must be a whole number",
    "--classes_per_task 4,3,3,0": "--classes_per_task 4,3,3,0: it must be between 1 and 100000",
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
    "--inv_steps 0": "--inv_steps 0: it must be between 1 and",
    "--model_config bst": "unknown preset 'bst': did you mean best",
    "--lr_milestones 1 2": "--lr_milestones [1, 2] does nothing for pmi_rdfcil: say --pmi_lr_milestones",
    "--class_order np1993": "--class_order: say --pmi_class_order",
    "--model sgd --backbone clip:ViT-B-32": "--backbone clip:ViT-B-32 has no classifier",
    "--model vpt --backbone clip:vit-b-32 --precision fp64": "--precision fp64: choose from ",
    "--model pmi_rdfcli": "unknown model 'pmi_rdfcli': did you mean pmi_rdfcil",
    "--dataset=seq-digist": "unknown data set 'seq-digist': did you mean seq-digits",
    "--backbone pmi_resnet23": "unknown backbone 'pmi_resnet23': did you mean pmi-resnet32",
    "--flurb 1": "unknown flag '--flurb': --help lists the flags",
    "--inv_stpes 3": "unknown flag '--inv_stpes': did you mean --inv_steps",
    "--alpah 1 --model derpp --buffer_size 9 --beta 1": "unknown flag '--alpah': did you mean --alpha",
    "--generator_steps 3": "is no flag of this run: it belongs to pmi-cl's abd, deepinversion, rdfcil",
    "--buffer_size 3": "is no flag of this run: it belongs to pmi-cl's bic, icarl, lucir and Mammoth's ",
    "--domains x --model sgd --lr 0.1": "--domains is no flag of this run: it belongs to pmi-cl's seq-multi",
    "foo": "unrecognized arguments: foo",
    "--lr nan --savecheck task": "--lr nan: it must be a finite number",
    "--lr=-1e-3": "--lr -0.001: it must be above 0",
    "--pmi_lr_milestones 0.4 0.2": "--lr_milestones 0.4,0.2: give them in rising order",
    "--loadcheck missing.pt": "--loadcheck missing.pt: there is no such file",
    "--eval_future 1 --model sgd --lr 0.1": "--eval_future 1: sgd cannot tell classes of later tasks",
    "--distributed dp": "--distributed dp does nothing for pmi_rdfcil: it trains on one device",
    "--distributed ddp --model sgd --lr 0.1": "--distributed ddp does not exist in Mammoth yet",
    "--joint 1 --stop_after 2": "--joint 1 is one task: leave --start_from and --stop_after out",
    "--lr 0.1 --lr=0.2": "Argument `--lr` is defined multiple times",
    "--classes_per_task 5,5 --classes_per_task=5,5": "--classes_per_task is given twice: keep one",
    "--inv_steps": "argument --inv_steps: expected one argument",
    "--backbone": "--backbone: expected one argument",
    "derpp": "unrecognized arguments: derpp",
    "--model pmi_vpt --synthetic_last_task 1": "Mammoth's loop hands out images: use pmi-cl itself",
    # The only one that needs the images of a task: folders have been made.
    "--batch_size 1000": "has fewer images than a batch: give --drop_last 0",
}
NO_GPU = {"-O 2": "-O 2 needs a GPU, and this machine has none: give -O 0 or -O 1"}

TRY_ALL = """
import contextlib, io, json, os, sys
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
    found[words] = [code, said.getvalue().strip().splitlines()[-1], os.listdir()]
print(json.dumps(found))
"""


def test_values_that_do_not_fit(mammoth_host: Path, tmp_path: Path) -> None:
    """The line is the last one, and no folder has been made."""
    cases = {**({} if torch.cuda.is_available() else NO_GPU), **MISTAKES}
    found = json.loads(python(tmp_path, TRY_ALL, str(mammoth_host), *cases))
    for typed, said in cases.items():
        code, line, made = found[typed]
        assert code == 2 and said in line and line.startswith("pmi-cl: error: "), (typed, line)
        assert typed == "--batch_size 1000" or made == [], (typed, made)


def test_a_method_whose_requirement_is_missing_and_a_data_set_that_would_download(
    mammoth_copy: Path, tmp_path: Path
) -> None:
    """Mammoth's seq-8vision asks for a pretrained CLIP at its import, for its transform alone."""
    (mammoth_copy / "models/cl_ip.py").write_text("import a_package_that_nobody_has\n")
    asks = "open_clip.create_model_and_transforms('ViT-B-16', pretrained='openai')[2]"
    (mammoth_copy / "datasets/seq_8vision.py").write_text(f"import open_clip\nTRANSFORM = {asks}\n")
    code = f"""
import sys
from pmi_cl.errors import UserError
from pmi_cl.mammoth.launch import launch
try:
    launch(["--mammoth_path", {str(mammoth_copy)!r}, "--model", "cl-ip", "--dataset", "seq-digits"])
except UserError as error:
    print(error, "|", type(sys.modules["datasets.seq_8vision"].TRANSFORM).__name__)
"""
    said = python(tmp_path, code)
    assert said.startswith(
        "--model cl-ip is Mammoth's and needs more than its requirements.txt (No module named 'a_pac"
    )
    assert said.endswith("requirements-optional.txt | Compose")


@pytest.mark.skipif(REAL is None, reason="needs MAMMOTH_PATH")
def test_the_bridge_is_not_why_a_method_of_mammoths_cannot_be_imported(tmp_path: Path) -> None:
    """Those that cannot are among the ones that the documentation names with what they need."""
    code = """
import sys
from pmi_cl.mammoth import register
register(sys.argv[1])
import models
kinds = models.get_model_names().items()
print({name.replace("-", "_"): repr(kind) for name, kind in kinds if not isinstance(kind, type)})
"""
    failed = ast.literal_eval(python(tmp_path, code, str(REAL)))
    text = (ROOT / "docs/mammoth.md").read_text()
    assert [name for name in failed if f"`{name}`" not in text] == []
    assert not [why for why in failed.values() if "seq_8vision" in why]


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
    models = register({str(mammoth_copy)!r}).ours["model"]
    print({{name: one.entry.name for name, one in models.items() if "rdfcil" in name}})
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
