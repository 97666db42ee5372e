"""Folders, relative to where the process is, and the device."""

import os

import torch


def _folder(function, path):
    if path is not None:
        os.makedirs(path, exist_ok=True)
        function.path = path if path.endswith("/") else path + "/"
    return function.path


def base_path(override=None):
    return _folder(base_path, override)


def get_checkpoint_path(override=None):
    return _folder(get_checkpoint_path, override)


def get_device(avail_devices=None):
    return torch.device("cpu")


base_path.path, get_checkpoint_path.path = "./data/", "./checkpoints/"
