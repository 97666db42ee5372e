"""A small registry in a folder, for tests of the command line: methods, data sets, backbones,
presets.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.utils.arguments.command_line import Resolved

FILES = {
    "models/finetune.py": '''
"""A method file."""
from dataclasses import dataclass
from pmi_cl.options import option

@dataclass(frozen=True)
class TrainingOptions:
    """What every method has."""
    lr: float = option(0.1, "learning rate", above=0, source="paper, Table 1")
    n_epochs: int = option(5, "passes over a task", unit="epochs", low=1)
    batch_size: int = option(32, "images in a batch", unit="images", low=1)

class Base:
    NAME = ""
    Options = TrainingOptions

class Finetune(Base):
    """Plain fine-tuning.

    More about it.
    """
    NAME = "finetune"
''',
    "models/invert_it.py": '''
"""Another method file, which builds on the first."""
from __future__ import annotations
import not_installed_anywhere
from dataclasses import dataclass
from pmi_cl.options import option
from pmi_cl.models.finetune import Base, TrainingOptions as Common

@dataclass(frozen=True)
class InvertOptions(Common):
    n_epochs: int = option(7, "other passes", unit="epochs", low=1)
    steps: int | None = option(None, "steps on an image; none: enough", unit="steps", low=1)
    milestones: tuple[int, ...] = option((48, 80), "where " "the rate falls", unit="epochs")
    start: str = option("pmi", "start image", choices=("noise", "pmi"))
    shift: float = option(-1.5, "a number that may be negative", low=-2, high=2)
    cfs: bool = option(True, "contrastive selection")

class Invert(Base):
    """Inversion of the old classes."""
    NAME = "invert_it"
    Options = InvertOptions
    COMPUTED = len("abc")
''',
    "models/prompts.py": '''
"""A method for another kind of network."""
from pmi_cl.models.finetune import Base

class Prompts(Base):
    """Prompts."""
    NAME = "prompts"
    BACKBONE_KIND = "vit"
    DEFAULTS = {"backbone": "vit-b", "n_epochs": 2}
''',
    "models/_private.py": "this is not Python",
    "datasets/base.py": '''
"""The base class."""
class ContinualDataset:
    NAME: str
    SETTING = "class-il"
    N_TASKS: int = 10
    DEFAULTS = {"backbone": "net-big"}
''',
    "datasets/hundred.py": '''
"""A data set of a hundred classes."""
from pmi_cl.datasets.base import ContinualDataset
from dataclasses import dataclass
from pmi_cl.options import option

@dataclass(frozen=True)
class HundredOptions:
    class_order: str = option("default", "order of the classes")

class Hundred(ContinualDataset):
    """A hundred classes."""
    NAME = "seq-hundred"
    N_CLASSES = 100
    Options = HundredOptions
    SIZE = (32, 32)
    MEAN = tuple(0.5 for _ in range(3))
''',
    "datasets/folder.py": '''
"""A data set whose classes only the disk knows."""
from pmi_cl.datasets.base import ContinualDataset

class Folder(ContinualDataset):
    """Images in folders."""
    NAME = "seq-folder"
    N_TASKS = None
    DEFAULTS = {"backbone": "net-small", "n_epochs": 3, "start": "noise"}
''',
    "backbones/net.py": '''
"""Networks."""
BACKBONES = {"net-big": "big", "net-small": "small"}

def big():
    """A big network."""

def small():
    """A small network."""
''',
    "backbones/vits.py": '''
"""Networks of another kind, with an option and names without end."""
from dataclasses import dataclass
from pmi_cl.options import option

@dataclass(frozen=True)
class VitOptions:
    weights: str = option("good", "where from")

KIND = "vit"
BACKBONES = {"vit-b": "vit_b", "vit:NAME": "any_vit"}
NAMES = ("One-2", "Two-1")
Options = VitOptions

def vit_b(args):
    """A ViT."""

def any_vit(args):
    """Any ViT."""
''',
    "models/config/prompts.yaml": """
small:
  about: other weights
  all: {weights: small}
  seq-folder: {backbone: "vit:Two-1"}
""",
    "models/config/invert_it.yaml": """
default: {all: paper, seq-folder: quick}
paper:
  about: the values of the paper
  all: {lr: 1e-3, n_epochs: 100, milestones: [1, 2]}
  seq-hundred: {n_epochs: 60, progress: 1}
quick:
  about: a minute
  all: {n_epochs: 1, debug_mode: 1, n_classes: 20}
wrong-key:
  all: {n_epoch: 4}
wrong-type:
  all: {n_epochs: many}
wrong-bound:
  seq-hundred: {shift: 3}
""",
}


def write_registry(folder: Path) -> Catalogue:
    """Write the files of the registry below ``folder``. Return a catalogue that reads them."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Catalogue([folder])


RUN = ["--model", "invert_it", "--dataset", "seq-hundred"]
PROMPTS = ["--model", "prompts", "--dataset", "seq-hundred"]


def printed(argv: list[str], catalogue: Catalogue, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command and return what it prints, its white space as single blanks."""
    assert main(argv, catalogue) == 0
    out, err = capsys.readouterr()
    assert err == "" and max(map(len, out.splitlines())) <= 100
    return " ".join(out.split())


def record(resolved: Resolved, name: str, **changed: object) -> Path:
    """Write the record of a run with some values changed. Return its folder."""
    folder = Path(resolved.args.results_path) / resolved.args.model / resolved.args.dataset / name
    folder.mkdir(parents=True)
    values = vars(resolved.args) | changed
    args = {key: {"value": value, "source": resolved.sources.get(key, "default")} for key, value in values.items()}
    (folder / "args.json").write_text(json.dumps({"schema": 1, "args": args}))
    return folder
