"""The flags of every run, and those that registers describe."""

import logging
import sys

from backbone import REGISTERED_BACKBONES

from datasets import get_dataset_names
from models import get_model_names
from utils import binary_to_boolean_type, custom_str_underscore


def _configuration(value):
    known = {"base": "default", "default": "default", "best": "best"}
    if value not in known:
        raise ValueError(value)
    return known[value]


def add_initial_args(parser, strict=True):
    parser.add_argument("--dataset", type=custom_str_underscore, required=strict, choices=list(get_dataset_names()))
    parser.add_argument("--model", type=custom_str_underscore, required=strict, choices=list(get_model_names()))
    parser.add_argument("--backbone", type=custom_str_underscore, choices=list(REGISTERED_BACKBONES))
    parser.add_argument("--load_best_args", action="store_true")


def add_configuration_args(parser, args):
    group = parser.add_argument_group("Configuration arguments")
    group.add_argument("--dataset_config", choices=[])
    group.add_argument("--model_config", type=_configuration, default="default")


def add_experiment_args(parser):
    add = parser.add_argument_group("Experiment arguments").add_argument
    add("--lr", required=True, type=float)
    add("--batch_size", type=int)
    add("--label_perc", type=float, default=1)
    add("--label_perc_by_class", type=float, default=1)
    add("--joint", type=int, choices=(0, 1), default=0)
    add("--eval_future", type=binary_to_boolean_type, default=False)
    add("--validation", type=float)
    add("--fitting_mode", choices=["epochs", "iters", "time", "early_stopping"], default="epochs")
    add("--n_epochs", type=int)
    add("--optimizer", default="sgd", choices=["sgd", "adam", "adamw"])
    add("--optim_wd", type=float, default=0.0)
    add("--optim_mom", type=float, default=0.0)
    add("--optim_nesterov", type=binary_to_boolean_type, default=0)
    add("--drop_last", type=binary_to_boolean_type, default=0)
    add("--lr_scheduler")
    add("--lr_milestones", type=int, default=[], nargs="+")


def add_management_args(parser):
    add = parser.add_argument_group("Management arguments").add_argument
    add("--seed", type=int)
    add("--permute_classes", type=binary_to_boolean_type, default=0)
    add("--base_path", default="./data/")
    add("--checkpoint_path", default="./checkpoints/")
    add("--results_path", default="results/")
    add("--non_verbose", type=binary_to_boolean_type, default=0)
    add("--num_workers", type=int)
    add("-O", "--code_optimization", type=int, default=0, choices=[0, 1, 2, 3])
    add("--distributed", choices=["no", "dp", "ddp"], default="no")
    add("--debug_mode", type=binary_to_boolean_type, default=0)
    add("--inference_only", type=binary_to_boolean_type, default=0)
    add("--enable_other_metrics", type=binary_to_boolean_type, default=0)
    add("--savecheck", choices=["last", "task"])
    add("--ckpt_name")
    add("--start_from", type=int)
    add("--stop_after", type=int)


def build_parsable_args(parser, spec):
    for name, about in spec.items():
        if any(action.dest == name for action in parser._actions):
            logging.warning(f"Argument `{name}` is already defined in the parser. Skipping...")
            continue
        parser.add_argument(
            f"--{name}",
            type=about.get("type", str),
            default=about.get("default"),
            choices=about.get("choices"),
            help=about.get("help", ""),
            required=about.get("required", False),
        )


def check_multiple_defined_arg_during_string_parse():
    flags = [word.split("=")[0] for word in sys.argv[1:] if "=" in word or word.startswith("-")]
    for flag in flags:
        if flags.count(flag) > 1:
            raise ValueError(f"Argument `{flag}` is defined multiple times.")
