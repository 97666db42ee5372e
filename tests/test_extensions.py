"""Test the templates of ``docs/adding_*.md``.

They work as a user's package that entry points make known, and as files of a checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pmi_cl.errors import UserError
from pmi_cl.inversion import plugins
from pmi_cl.models.inversion_parts import check_named
from pmi_cl.registry.extensions import extensions
from tests.support.forked_python import run_python

ROOT = Path(__file__).resolve().parent.parent
# page -> the module that its template becomes, and how long it may be in lines that are not empty
PAGES = {
    "method": ("taught", 40),
    "dataset": ("stripes", 25),
    "backbone": ("plain", 20),
    "inversion_part": ("inversion", 15),
}
SMALL = [
    "--n_epochs",
    "1",
    "--train_per_class",
    "8",
    "--batch_size",
    "8",
    "--num_threads",
    "1",
    "--savecheck",
    "none",
    "--tensorboard",
    "0",
]


def page(name: str) -> str:
    article = "an" if name[0] in "aeiou" else "a"
    return (ROOT / "docs" / f"adding_{article}_{name}.md").read_text(encoding="utf-8")


def template(name: str) -> str:
    """Return the first program of a page."""
    return str(re.findall(r"^```python\n(.*?)^```", page(name), re.DOTALL | re.MULTILINE)[0])


def entry_points() -> str:
    """Return the entry points of all pages, in the format of an installed package."""
    tables = re.findall(
        r"^ *\[project\.entry-points\.\"(.*?)\"\]\n(.*?)^ *```", "".join(map(page, PAGES)), re.DOTALL | re.MULTILINE
    )
    assert len(tables) == len(PAGES)
    return "\n".join(
        f"[{group}]\n" + "\n".join(line.strip().replace('"', "") for line in body.splitlines())
        for group, body in tables
    )


def install(folder: Path, package: str, modules: dict[str, str], points: str) -> None:
    """Write what ``pip install`` leaves of a package: its files and its metadata."""
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(points)
    for name, text in {"__init__": "", **modules}.items():
        (folder / package).mkdir(exist_ok=True)
        (folder / package / f"{name}.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder of installed packages with the pages' templates in one."""
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, "my_package", {module: template(name) for name, (module, _) in PAGES.items()}, entry_points())
    return folder


def command(site: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    here = cwd or site.parent
    return run_python(["-m", "pmi_cl", *words], here, environment)


@pytest.mark.parametrize("name", PAGES)
def test_a_template_is_short_and_stands_alone(name: str) -> None:
    lines = [line for line in template(name).splitlines() if line.strip()]
    assert len(lines) <= PAGES[name][1]
    compile(template(name), name, "exec")


def test_what_a_package_adds_is_listed_and_explained_without_importing_it(site: Path) -> None:
    (site / "my_package/__init__.py").write_text("raise RuntimeError('imported')")
    listed = command(site, "--list")
    assert listed.returncode == 0, listed.stderr
    for line in (
        "taught         [my-package] Fine-tuning beside the logits of the network before the task.",
        "seq-stripes     [my-package] Stripes of ten widths",
        "plain4         [my-package] Four convolutions",
        "grey   [my-package] my_package.inversion:grey",
    ):
        assert " ".join(line.split()) in " ".join(listed.stdout.split())
    helped = command(site, "--help", "--model", "taught").stdout
    assert "--distillation FLOAT" in helped and "weight of the distance to the old network's logits" in " ".join(
        helped.split()
    )
    refused = command(site, "--model", "taught", "--dataset", "seq-stripes", "--distillation", "-1", "--check")
    assert refused.stderr == "pmi-cl: error: --distillation -1: it must be at least 0\n"


def test_a_method_on_a_data_set_on_a_backbone_of_one_s_own(site: Path) -> None:
    words = ["--model", "taught", "--dataset", "seq-stripes", "--backbone", "plain4", "--distillation", "0.5"]
    done = command(site, *words, *SMALL, "--model_config", "none")
    assert done.returncode == 0, done.stderr
    assert "taught on seq-stripes, seed 0: A_5 = " in done.stdout


def test_a_run_of_one_s_own_method_goes_on_where_it_stopped(site: Path) -> None:
    words = ["--model", "taught", "--dataset", "seq-stripes", *SMALL[:-4], "--results_path", "runs", "--run_name"]
    whole = command(site, *words, "whole", "--stop_after", "2", "--tensorboard", "0")
    assert whole.returncode == 0, whole.stderr
    half = command(site, *words, "half", "--stop_after", "1", "--tensorboard", "0")
    assert half.returncode == 0, half.stderr
    rest = command(site, "--resume", "runs/taught/seq-stripes/half", "--stop_after", "2")
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]


def test_an_inversion_takes_its_start_and_a_term_from_a_package(site: Path) -> None:
    small = [
        "--buffer_images",
        "24",
        "--inv_batch",
        "24",
        "--inv_steps",
        "2",
        "--cont_epochs",
        "2",
        "--stop_after",
        "2",
        *SMALL,
    ]
    words = ["--model", "pmi_rdfcil", "--dataset", "seq-digits", *small]
    done = command(site, *words, "--inv_start", "grey", "--inv_terms", "shown=0.5")
    assert done.returncode == 0, done.stderr
    for flags, said in (
        (["--inv_start", "gray"], "unknown start of the inversion 'gray': did you mean grey?"),
        (["--inv_terms", "shown=much"], "--inv_terms shown=much: write NAME or NAME=WEIGHT"),
        (["--inv_terms", "showm"], "unknown term of the inversion 'showm': did you mean shown?"),
        (
            ["--inv_terms", "grey", "--check"],
            "--inv_terms grey: the part of an inversion 'grey' of the package my-package cannot be used",
        ),
    ):
        refused = command(site, *words, *flags)
        assert refused.returncode == 2 and said in refused.stderr


PARTS = "def start(shape, generator):\n    return generator\n\n\ndef short(weight):\n    return weight\n"
NO_PARTS = {
    "--inv_start lost": "broken.lost:start: ModuleNotFoundError: No module named 'not_there'",
    "--inv_terms lost": "broken.lost:start: ModuleNotFoundError: No module named 'not_there'",
    "--inv_start started": "no start, called with (1, 3, 32, 32) and a generator it gives a Generator, "
    "not images of that shape",
    "--inv_start shown": "no start, called with (1, 3, 32, 32) and a generator it ends with TypeError: ",
    "--inv_terms grey": "no term, called with the weight 1 it ends with TypeError: ",
    "--inv_terms short=2": "no term, called with the weight 2 it gives a float, which cannot be called",
}


@pytest.mark.parametrize("typed", NO_PARTS)
def test_what_is_no_part_of_an_inversion_is_refused_before_the_first_task(
    typed: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = "[pmi_cl.inversion]\nlost = broken.lost:start\nstarted = broken.parts:start\nshort = broken.parts:short\n"
    install(site, "broken", {"lost": "import not_there\n", "parts": PARTS}, points)
    monkeypatch.syspath_prepend(str(site))
    extensions.cache_clear()
    flag, word = typed.split()
    try:
        with pytest.raises(UserError) as caught:
            check_named(*((word, ()) if flag == "--inv_start" else ("noise", (word,))), side=32)
    finally:
        extensions.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] in ("broken", "my_package")]:
            del sys.modules[name]
    said = str(caught.value)
    assert (
        said.startswith(f"{typed}: the part of an inversion '{word.partition('=')[0]}' of the package ")
        and NO_PARTS[typed] in said
    )
    assert "\n" not in said


def test_trying_a_start_leaves_the_random_numbers_as_they_were(site: Path) -> None:
    (site / "my_package/inversion.py").write_text(
        "import torch\n\n\ndef grey(shape, generator):\n    return torch.randn(shape)\n"
    )
    program = "import torch; from pmi_cl.models.inversion_parts import check_named as c; "
    program += "a = torch.get_rng_state(); c('grey', ()); "
    ended = "print(torch.equal(a, torch.get_rng_state()))"
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    done = run_python(["-c", program + ended], env=environment)
    assert done.stdout == "True\n", done.stderr


FAILING = "from pmi_cl.models.resnet.sgd import Sgd\nimport not_there\n\n\nclass Failing(Sgd):\n    NAME = 'failing'\n"
BROKEN = {
    "absent": ("nowhere:Absent", {}, "there is no such module"),
    "unnamed": ("broken.unnamed:Unnamed", {"unnamed": "class Unnamed:\n    pass\n"}, "its NAME must be 'unnamed'"),
    "undefined": ("broken.undefined:Undefined", {"undefined": ""}, "the module does not define it"),
    "unreadable": ("broken.unreadable:Unreadable", {"unreadable": "class Unreadable(:\n"}, "invalid syntax"),
    "sgd": (
        "broken.sgd:Sgd",
        {"sgd": "class Sgd:\n    NAME = 'sgd'\n"},
        "the name is taken by pmi_cl.models.resnet.sgd",
    ),
    "failing": ("broken.failing:Failing", {"failing": FAILING}, "ModuleNotFoundError: No module named 'not_there'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_package_that_cannot_be_used_is_named_and_stops_nothing_else(name: str, tmp_path: Path) -> None:
    target, modules, said = BROKEN[name]
    install(tmp_path, "broken", modules, f"[pmi_cl.models]\n{name} = {target}\n")
    listed = command(tmp_path, "--list")
    assert listed.returncode == 0 and "joint" in listed.stdout and name in listed.stdout
    done = command(tmp_path, "--model", name, "--dataset", "seq-digits", *SMALL)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"the model '{name}' of the package broken cannot be used" in done.stderr and said in done.stderr


@pytest.mark.parametrize("name", ["method", "dataset", "backbone"])
def test_a_template_works_as_a_file_of_a_checkout(name: str, tmp_path: Path) -> None:
    """It lies where its page says."""
    text = " ".join(page(name).split())  # lines of prose break anywhere
    place = re.search(r"save it as `(\w+/\w+\.py)`", text)
    assert place is not None
    ignored = shutil.ignore_patterns(".*", "tests", "results", "runs", "docs", "__pycache__")
    copy = Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=ignored))
    (copy / place[1]).write_text(template(name))
    words = re.search(r"`python main\.py (.*?)`", text)
    assert words is not None
    small = {"pmi_rdfcil": ["--buffer_images", "20", "--inv_batch", "20", "--inv_steps", "2", "--cont_epochs", "2"]}
    command_line = [
        *words[1].split(),
        *SMALL,
        "--stop_after",
        "2",
        *(small["pmi_rdfcil"] if "pmi_rdfcil" in words[1] else []),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = run_python(["main.py", *command_line], copy, environment)
    assert done.returncode == 0, done.stderr


def test_the_engine_refuses_unknown_names_in_its_own_words() -> None:
    for refuse in (plugins.check_start, plugins.start_named, plugins.check_term, plugins.term_named):
        with pytest.raises(ValueError, match=r"unknown (start|term) of the inversion 'blue'"):
            refuse("blue")
