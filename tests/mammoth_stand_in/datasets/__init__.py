"""Data sets: registered ones, and those of every file in this folder, all of which are imported."""

import importlib
import inspect
import os

mammoth_path = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.chdir(mammoth_path)

from datasets.utils.continual_dataset import ContinualDataset
from utils import infer_args_from_signature, register_dynamic_module_fn

REGISTERED_DATASETS = {}


def register_dataset(name):
    return register_dynamic_module_fn(name, REGISTERED_DATASETS, ContinualDataset, ignore_args=["self", "args"])


def get_all_datasets_legacy():
    return [file[:-3] for file in os.listdir("datasets") if file.endswith(".py") and "__" not in file]


def get_dataset_names():
    names = dict(REGISTERED_DATASETS)
    for stem in get_all_datasets_legacy():
        for value in vars(importlib.import_module(f"datasets.{stem}")).values():
            if inspect.isclass(value) and "ContinualDataset" in str(inspect.getmro(value)[1:]):
                signature = inspect.signature(value.__init__)
                known = {name: about for name, about in infer_args_from_signature(signature).items() if name != "args"}
                names[value.NAME] = {"class": value, "parsable_args": known}
    return names


def get_dataset(args):
    entry = get_dataset_names()[args.dataset]
    return entry["class"](args, **{name: getattr(args, name) for name in entry["parsable_args"]})


for name in os.listdir(os.path.dirname(os.path.abspath(__file__))):
    if name.endswith(".py") and name != "__init__.py":
        importlib.import_module(f"datasets.{name[:-3]}")
