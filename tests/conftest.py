"""Fixtures that several test modules share.

One CPU thread, CIFAR-100, a finished run, checkouts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from matplotlib.artist import Artist
from matplotlib.text import Text

from pmi_cl.backbones import clip_weights
from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.inversion.ways.conditional_generator import ConditionalGenerator
from pmi_cl.inversion.ways.generator import Generator
from pmi_cl.registry.catalogue import Catalogue
from tests.support.clip_weight_files import CONFIGS, TAGS, TINY
from tests.support.command_runs import SLOW, complete, folder_of
from tests.support.image_sets import UNPACK
from tests.support.mammoth_runs import HOSTS, REAL, STAND_IN
from tests.support.sample_registry import write_registry
from tests.support.small_runs import words_of


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share the tests out as :mod:`tests.support.shared_out` says, unless ``--dist`` says how."""
    from tests.support.shared_out import ByGroup

    return ByGroup(config, log) if config.option.dist == "load" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, where tests are shared out."""
    if hasattr(config, "workerinput"):
        from tests.support.shared_out import place_of

        items.sort(key=place_of)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread: small tensors are slower on several, and the test machines are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def small_generator() -> Iterator[None]:
    """Give R-DFCIL's and DCMI's generators an eighth of their width.

    Its 8.4 million parameters would be most of what tests write, read and compare. The test of the
    generator itself has those of the paper.
    """
    with mock.patch.multiple(Generator, NOISE=100, WIDTH=16), mock.patch.object(ConditionalGenerator, "WIDTH", 32):
        yield


@pytest.fixture(scope="session", autouse=True)
def pictures_without_letters() -> Iterator[None]:
    """Draw pictures without their letters.

    Setting letters takes longer than all else of most of the runs that tests make in this process.
    """
    with mock.patch.object(Text, "get_visible", lambda text: False):
        yield


@pytest.fixture
def letters() -> Iterator[None]:
    """Draw pictures with their letters, for tests of pictures or of the names in them."""
    with mock.patch.object(Text, "get_visible", Artist.get_visible):
        yield


@pytest.fixture(scope="session")
def cifar100_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a ``base_path`` with the official CIFAR-100.

    It is the folder that PMI_CL_TEST_DATA names, filled if need be, or a temporary one.
    """
    kept = os.environ.get("PMI_CL_TEST_DATA")
    if kept and all((Path(kept) / "cifar-100-python" / name).exists() for name in ("train", "test", "meta")):
        return Path(kept)
    if not UNPACK.exists():
        pytest.skip(
            f"no CIFAR-100: set PMI_CL_TEST_DATA to a folder with cifar-100-python/ ({UNPACK} is not here either)"
        )
    folder = Path(kept) if kept else tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, str(UNPACK), str(folder), "cifar100"], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Run the whole method to its end by the real command.

    Return its folder, its stdout and its stderr.
    """
    results_path = tmp_path_factory.mktemp("finished")
    out, err = complete([*words_of("pmi_rdfcil", **SLOW), "--results_path", str(results_path), "--run_name", "whole"])
    return folder_of(results_path, "pmi_rdfcil", "whole"), out, err


@pytest.fixture
def tiny_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make open_clip know three tiny models, one of them with weights, and keep off the network.

    The home folder and the hub's cache are empty.
    """
    factory, pretrained = open_clip_module("factory"), open_clip_module("pretrained")
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, **CONFIGS})
    monkeypatch.setitem(pretrained._PRETRAINED, TINY, TAGS)
    monkeypatch.setitem(clip_weights.MODELS, "clip-tiny-test", TINY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="session", params=HOSTS)
def mammoth_host(request: pytest.FixtureRequest) -> Path:
    """Return the folder of a checkout of Mammoth: the stand-in, or a real one."""
    return STAND_IN if request.param == "stand-in" else Path(str(REAL))


@pytest.fixture
def mammoth_copy(tmp_path: Path) -> Path:
    """Return a copy of the stand-in that a test may change."""
    return Path(shutil.copytree(STAND_IN, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """Return the sample registry. The current folder is an empty one beside it."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return write_registry(tmp_path / "package")
