"""Methods: registered ones, and those of every file in this folder."""

import importlib
import inspect
import os

mammoth_path = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.chdir(mammoth_path)

from models.utils.continual_model import ContinualModel
from utils import register_dynamic_module_fn

REGISTERED_MODELS = {}


def register_model(name):
    return register_dynamic_module_fn(name, REGISTERED_MODELS, ContinualModel)


def get_all_models_legacy():
    return [file.removesuffix(".py") for file in os.listdir("models") if file.endswith(".py") and "__" not in file]


def get_model_names():
    names = {name: entry["class"] for name, entry in REGISTERED_MODELS.items()}
    for stem in get_all_models_legacy():
        if stem.replace("_", "-") in names:
            continue
        try:
            module = importlib.import_module(f"models.{stem}")
        except Exception as error:
            names[stem.replace("_", "-")] = error
            continue
        for value in vars(module).values():
            if inspect.isclass(value) and "ContinualModel" in str(inspect.getmro(value)[1:]):
                names[value.NAME.replace("_", "-")] = value
    return names


def get_model_class(args):
    return get_model_names()[args.model.replace("_", "-")]


def get_model(args, backbone, loss, transform, dataset):
    return get_model_class(args)(backbone, loss, args, transform, dataset)
