"""The buffer of synthetic samples: balanced draws, files, and files that are not what they seem."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from pmi_cl.errors import UserError
from pmi_cl.inversion.buffer import SyntheticBuffer
from pmi_cl.seeding import seeded

COUNTS = {0: 3, 2: 40, 5: 7}  # labels need not be consecutive


def a_buffer() -> SyntheticBuffer:
    """Every image and every row of logits says which row it is."""
    labels = torch.repeat_interleave(torch.tensor(list(COUNTS)), torch.tensor(list(COUNTS.values())))
    labels = labels[torch.randperm(50, generator=seeded(0))]
    rows = torch.arange(50).float()
    return SyntheticBuffer(rows[:, None, None, None].expand(-1, 3, 2, 2).clone(), labels, rows[:, None].expand(-1, 4).clone())


@pytest.mark.parametrize("n", [1, 2, 3, 8, 90, 128])
def test_draws_are_balanced_to_within_one(n: int) -> None:
    images, labels, logits = a_buffer().draw(n, seeded(n))
    counts = [int((labels == label).sum()) for label in COUNTS]
    assert sum(counts) == n and max(counts) - min(counts) <= 1
    rows = images[:, 0, 0, 0].long()
    assert torch.equal(rows, logits[:, 0].long()) and torch.equal(labels, a_buffer().labels[rows])


def test_the_class_with_one_more_changes() -> None:
    buffer = a_buffer()
    firsts = {int(buffer.draw(1, seeded(seed))[1]) for seed in range(30)}
    assert firsts == set(COUNTS)


def test_every_image_is_drawn_about_equally_often_within_its_class() -> None:
    images, _, _ = a_buffer().draw(12_000, seeded(1))
    times = torch.bincount(images[:, 0, 0, 0].long(), minlength=50)
    for label, count in COUNTS.items():
        of_class = times[a_buffer().labels == label]
        assert of_class.min() > 0.6 * 4000 / count and of_class.max() < 1.4 * 4000 / count


def test_the_generator_decides() -> None:
    first, again, other = (a_buffer().draw(20, seeded(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_buffer_in_half_precision_is_replayed_in_float32() -> None:
    buffer = a_buffer()
    half = SyntheticBuffer(buffer.images.bfloat16(), buffer.labels, buffer.logits)
    assert half.draw(4, seeded(0))[0].dtype == torch.float32


def test_a_saved_buffer_is_the_same(tmp_path: Path) -> None:
    buffer, path = a_buffer(), tmp_path / "buffer.pt"
    buffer.save(path)
    again = SyntheticBuffer.load(path)
    assert len(again) == 50
    for name, value in buffer.state().items():
        assert torch.equal(again.state()[name], value)
    assert all(torch.equal(one, other) for one, other in zip(buffer.draw(9, seeded(0)), again.draw(9, seeded(0)), strict=True))
    assert [file.name for file in tmp_path.iterdir()] == ["buffer.pt"]


class Touches:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_malicious_file_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "buffer.pt"
    torch.save({**a_buffer().state(), "logits": Touches(trap)}, path)
    with pytest.raises(UserError, match=r"buffer\.pt is not a whole buffer"):
        SyntheticBuffer.load(path)
    path.write_bytes(pickle.dumps(Touches(trap), protocol=2))
    with pytest.raises(UserError):
        SyntheticBuffer.load(path)
    assert not trap.exists()
    pickle.loads(path.read_bytes())  # the trap works where it is not refused
    assert trap.exists()


@pytest.mark.parametrize("kept", [0, 10, 1000, -200])
def test_a_truncated_file_is_refused(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "buffer.pt"
    a_buffer().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="not a whole buffer"):
        SyntheticBuffer.load(path)


@pytest.mark.parametrize("content", [{"images": torch.zeros(1)}, [1, 2], {"images": 1, "labels": 2, "logits": 3}])
def test_another_file_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match="not a whole buffer"):
        SyntheticBuffer.load(tmp_path / "other.pt")
    with pytest.raises(UserError, match="not a whole buffer"):
        SyntheticBuffer.load(tmp_path / "missing.pt")
