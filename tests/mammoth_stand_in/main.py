"""Parses in stages, builds data set, backbone and method, and trains.

``python main.py --model M --dataset D``.
"""

import argparse
import os
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def load_configs(parser, cmd):
    from datasets.utils import DEFAULT_ARGS, load_dataset_config
    from models.utils import load_model_config

    from datasets import get_dataset_names
    from models import get_model_class

    args = parser.parse_known_args(cmd)[0]
    group = parser.add_argument_group("Model-specific arguments")
    get_model_class(args).get_parser(group)
    config = load_model_config(args, buffer_size=None)
    assert args.dataset in get_dataset_names()
    data = {**DEFAULT_ARGS.get(args.dataset, {}), **load_dataset_config(args.dataset_config, args.dataset)}
    return {**data, **parser._defaults, **config}


def parse_args(cmd=None, verbose=False):
    from backbone import REGISTERED_BACKBONES
    from utils.args import (
        add_configuration_args,
        add_experiment_args,
        add_initial_args,
        add_management_args,
        build_parsable_args,
        check_multiple_defined_arg_during_string_parse,
    )

    from datasets import get_dataset_names

    cmd = cmd or sys.argv[1:]
    check_multiple_defined_arg_during_string_parse()
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--loadcheck")
    file = parser.parse_known_args(cmd)[0].loadcheck
    saved = torch.load(file, map_location="cpu", weights_only=True)["args"] if file and os.path.exists(file) else {}
    add_initial_args(parser, strict=not saved)
    parser.set_defaults(**saved)
    args = parser.parse_known_args(cmd)[0]
    add_configuration_args(parser, args)
    config = load_configs(parser, cmd)
    parser.add_argument("-h", "--help", action="help", default=argparse.SUPPRESS)
    backbone = args.backbone or config["backbone"]
    build_parsable_args(
        parser.add_argument_group("Dataset arguments"), get_dataset_names()[args.dataset]["parsable_args"]
    )
    build_parsable_args(
        parser.add_argument_group("Backbone arguments"), REGISTERED_BACKBONES[backbone]["parsable_args"]
    )
    add_management_args(parser)
    add_experiment_args(parser)
    parser.set_defaults(**config)
    for action in parser._actions:
        if action.dest in config:
            action.default, action.required = config[action.dest], False
    for action in parser._actions:
        if action.default is not None and action.type is not None and action.dest != "help":
            if action.nargs is None:
                action.default = action.type(action.default)
            elif not isinstance(action.default, (list, tuple)) or action.type not in (list, tuple):
                action.default = [action.type(value) for value in action.default]
    args = parser.parse_args(cmd)
    if args.savecheck:
        os.makedirs("checkpoints", exist_ok=True)
    if args.seed is not None:
        torch.manual_seed(args.seed)
    return args


def initialize(args=None):
    from backbone import get_backbone
    from utils.conf import base_path, get_checkpoint_path, get_device

    from datasets import get_dataset
    from models import get_model

    args = parse_args() if args is None else args
    args.device = get_device()
    base_path(args.base_path)
    get_checkpoint_path(args.checkpoint_path)
    dataset = get_dataset(args)
    if hasattr(args, "num_classes") and args.num_classes is None:
        args.num_classes = dataset.N_CLASSES
    assert args.batch_size is not None, "Mammoth imports models.<name> here, and fails for an outside method"
    args.minibatch_size, args.nowand = args.batch_size, 1
    model = get_model(args, get_backbone(args), dataset.get_loss(), dataset.get_transform(), dataset=dataset)
    return model, dataset, args


def main(args=None):
    from utils.training import train  # first, as Mammoth has it: it makes a folder

    train(*initialize(args))


if __name__ == "__main__":
    main()
