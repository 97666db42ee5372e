"""Test checkpoints: bit for bit there and back, written whole, never unsafe.

One that is not ours or not safe is refused with a reason.
"""

import pickle
import resource
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from pmi_cl.errors import UserError
from pmi_cl.utils.records import checkpoints

IDENTITY = {
    "model": "pmi_rdfcil",
    "dataset": "seq-digits",
    "n_tasks": 5,
    "class_order": [3, 1, 2, 0],
    "backbone": "resnet32",
}


class Bomb:
    """An object whose unpickling creates a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoints.save(path, {**IDENTITY, "net": {"weight": torch.arange(1000.0)}})
    return path


DTYPES = [
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4, 5)])
def test_tensors_come_back_bit_for_bit(tmp_path, dtype, shape):
    tensor = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1000).to(dtype)
    checkpoints.save(tmp_path / "c.pt", {"t": tensor})
    back = checkpoints.load(tmp_path / "c.pt", {})["t"]
    assert back.dtype == dtype and back.shape == tensor.shape
    assert back.reshape(-1).view(torch.uint8).equal(tensor.reshape(-1).view(torch.uint8)) if tensor.numel() else True


def test_nan_infinity_and_minus_zero_survive(tmp_path):
    tensor = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    checkpoints.save(tmp_path / "c.pt", {"t": tensor, "x": float("inf")})
    back = checkpoints.load(tmp_path / "c.pt", {})
    assert back["t"].view(torch.int32).equal(tensor.view(torch.int32)) and back["x"] == float("inf")


def test_plain_data_comes_back_equal_and_of_the_same_types(tmp_path):
    state = {
        "i": 2**70,
        "f": 0.1,
        "s": "zwölf",
        "n": None,
        "b": True,
        "l": [1, [2.0, None]],
        "t": (0.9, 0.999),
        "d": {0: {"x": []}},
    }
    checkpoints.save(tmp_path / "c.pt", state)
    back = checkpoints.load(tmp_path / "c.pt", {})
    assert back.pop("format") == checkpoints.FORMAT
    assert repr(back) == repr(state)


def test_numpy_numbers_become_pythons_own(tmp_path):
    checkpoints.save(tmp_path / "c.pt", {"accuracy": np.float64(81.25), "state": OrderedDict(a=1)})
    back = checkpoints.load(tmp_path / "c.pt", {})
    assert type(back["accuracy"]) is float and type(back["state"]) is dict


def test_an_optimiser_goes_on_where_it_was(tmp_path):
    def trained(steps, resume_after=None):
        weight = torch.nn.Parameter(torch.ones(3))
        optimiser = torch.optim.Adam([weight], lr=0.1)
        for step in range(steps):
            if step == resume_after:
                checkpoints.save(tmp_path / "c.pt", {"weight": weight, "optimiser": optimiser.state_dict()})
                back = checkpoints.load(tmp_path / "c.pt", {})
                weight = torch.nn.Parameter(back["weight"])
                optimiser = torch.optim.Adam([weight], lr=0.7)
                optimiser.load_state_dict(back["optimiser"])
            optimiser.zero_grad()
            (weight**2).sum().backward()
            optimiser.step()
        return weight

    assert trained(4).equal(trained(4, resume_after=2))


def test_a_view_is_saved_without_what_it_looks_into(tmp_path):
    whole = torch.zeros(1_000_000)
    checkpoints.save(tmp_path / "c.pt", {"t": whole[10:20]})
    assert (tmp_path / "c.pt").stat().st_size < 10_000


def test_memory_format_survives(tmp_path):
    tensor = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    checkpoints.save(tmp_path / "c.pt", {"t": tensor})
    assert checkpoints.load(tmp_path / "c.pt", {})["t"].stride() == tensor.stride()


@pytest.mark.parametrize("value", [np.zeros(2), Path("x"), {1, 2}, torch.nn.Linear(1, 1)])
def test_what_could_not_be_loaded_is_not_saved(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\['a'\]\[0\]"):
        checkpoints.save(tmp_path / "c.pt", {"a": [value]})
    assert not any(tmp_path.iterdir())


def test_the_right_checkpoint_is_loaded(saved):
    assert checkpoints.load(saved, IDENTITY)["net"]["weight"].equal(torch.arange(1000.0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "sgd"),
        ("dataset", "seq-cifar100"),
        ("n_tasks", 10),
        ("class_order", [0, 1, 2, 3]),
        ("backbone", "resnet20"),
        ("new", 1),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(saved, name, value):
    with pytest.raises(UserError, match=f"{name}.*this run has {name}"):
        checkpoints.load(saved, {**IDENTITY, name: value})


def test_another_format_is_refused(saved):
    checkpoints.save(saved, {"format": "pmi-cl checkpoint 99"})
    with pytest.raises(UserError, match=r"pmi-cl checkpoint 99.*use the version"):
        checkpoints.load(saved, {})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoints.load(tmp_path / "none.pt", {})
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoints.load(tmp_path, {})


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved, kept):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match="truncated or damaged") as refusal:
        checkpoints.load(saved, IDENTITY)
    assert "\n" not in str(refusal.value)


def test_one_flipped_bit_in_a_weight_is_noticed(saved):
    content = bytearray(saved.read_bytes())
    place = content.index(torch.arange(500.0, 510.0).numpy().tobytes())
    content[place] ^= 1
    saved.write_bytes(content)
    with pytest.raises(UserError, match="truncated or damaged"):
        checkpoints.load(saved, IDENTITY)


@pytest.mark.parametrize("content", [b"", b"PK", b"hello, I am no checkpoint", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a checkpoint of pmi-cl"):
        checkpoints.load(path, {})


@pytest.mark.parametrize("other", [{"weight": torch.zeros(2)}, torch.zeros(2), {"format": 3}, [1, 2]])
def test_another_programs_checkpoint_is_refused(tmp_path, other):
    torch.save(other, tmp_path / "c.pt")
    with pytest.raises(UserError, match="not a checkpoint of pmi-cl"):
        checkpoints.load(tmp_path / "c.pt", {})


@pytest.mark.parametrize("writer", ["torch", "torch legacy", "pickle", "pickle 0"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, writer):
    target, path = tmp_path / "target", tmp_path / "c.pt"
    state = {"format": checkpoints.FORMAT, **IDENTITY, "net": Bomb(target)}
    if writer.startswith("torch"):
        torch.save(state, path, _use_new_zipfile_serialization=writer == "torch")
    else:
        path.write_bytes(pickle.dumps(state, protocol=0 if writer.endswith("0") else None))
    with pytest.raises(UserError, match="refused" if writer != "pickle 0" else "not a checkpoint"):
        checkpoints.load(path, IDENTITY)
    assert not target.exists()


def test_the_bomb_would_go_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "target")))
    assert (tmp_path / "target").exists()


def test_a_disk_that_fills_up_keeps_the_old_checkpoint(saved):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match="make room"):
            checkpoints.save(saved, {**IDENTITY, "net": {"weight": torch.randn(100_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints.load(saved, IDENTITY)["net"]["weight"].equal(torch.arange(1000.0))
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]
