"""Test that no image of a past task is kept, and that none has any influence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pmi_cl.utils.run.training import Training
from tests.support.byte_search import found_in
from tests.support.method_runs import DATA_FREE, ONE_BY_ONE, REPLAYING, trained_twice, uninterrupted
from tests.support.small_runs import differences, start, tensors_in


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_no_image_of_a_past_task_has_any_influence(method: str) -> None:
    """The training images of a task are overwritten when it ends. The run must not notice."""

    def forget() -> None:
        done = training.position.task - 1
        training.dataset.train.images[training.dataset.train_indices(done)] = 77

    training = start(method, after_task=forget)
    training.run()
    assert training.dataset.train.images.unique().tolist() == [77]
    assert differences(uninterrupted(method, "plain").state(), training.state()) == []


def images_within(state: Any, images: list[bytes]) -> int:
    """Return how many images are found in any tensor that can be reached from the state.

    Each image is given by some of its bytes.
    """
    held = [tensor.detach().cpu() for tensor in tensors_in(state)]
    layouts = [tensor.contiguous() for tensor in held] + [
        tensor.permute(0, 2, 3, 1).contiguous() for tensor in held if tensor.dim() == 4
    ]
    memory = [tensor.numpy().tobytes() for tensor in layouts if tensor.dtype != torch.bfloat16]
    return found_in(memory, images)


def looks_of(training: Training, task: int) -> list[bytes]:
    """Return the training images of a task as a state might hold them.

    That is as pixels or normalised, one plane or one row of pixels.
    """
    dataset = training.dataset
    pixels = dataset.train.images[dataset.train_indices(task)]
    floats = dataset.normalise(pixels)
    planes = [image[0, 3:13].contiguous() for images in (pixels, floats) for image in images]
    rows = [image[:, 8].T.contiguous() for images in (pixels, floats) for image in images]
    return [part.numpy().tobytes() for part in (*planes, *rows)]


def test_the_search_finds_what_is_there_at_any_byte() -> None:
    """Its answer is that of Python's ``in``."""
    numbers = torch.Generator().manual_seed(0)
    block = torch.randint(0, 4, (4000,), dtype=torch.uint8, generator=numbers).numpy().tobytes()
    there = [block[start : start + 40] for start in (0, 1, 13, 1022, 2047, 3960)]
    absent = [text[:-1] + b"\x04" for text in there]
    blocks = [b"short", bytes(500), block, block]
    assert [found_in(blocks, [text]) for text in (*there, *absent)] == [1] * 6 + [0] * 6
    assert found_in(blocks, [*absent, *there]) == sum(any(text in one for one in blocks) for text in (*there, *absent))


@pytest.mark.parametrize("method", [method for method in ONE_BY_ONE if method not in DATA_FREE])
def test_a_method_that_keeps_images_keeps_those_that_it_counts(method: str) -> None:
    training = uninterrupted(method, "plain")
    memory = training.model.memory  # type: ignore[attr-defined]
    pixels = training.dataset.train.images
    assert 0 < len(memory) == sum(bool((pixels == image).flatten(1).all(1).any()) for image in memory.images)
    looks = [look for task in range(3) for look in looks_of(training, task)]
    state = training.model.state()
    assert images_within(state, looks) > 0
    assert images_within({**state, "memory": None, "held": None}, looks) == 0  # BiC holds some out


@pytest.mark.parametrize("method", DATA_FREE)
def test_no_real_image_is_kept(method: str) -> None:
    training = uninterrupted(method, "plain")
    looks = [look for task in range(3) for look in looks_of(training, task)]
    assert images_within(training.state(), looks) == images_within(training.model, looks) == 0
    if method in REPLAYING:  # in the midst of a task, with its synthetic samples at hand
        assert images_within(trained_twice(method)[0].model, looks) == 0
    normalised = training.dataset.normalise(training.dataset.train.images[:5])
    task = int(training.dataset.train.labels[0]) // 2
    stolen = {"state": training.state(), "hidden": [{"deep": normalised}]}
    assert images_within(stolen, looks_of(training, task)) > 0  # the search would have found one
