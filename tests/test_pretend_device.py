"""Test the pretended GPU itself.

It computes, says where it is, refuses what CUDA refuses, takes what CUDA takes, and sees waits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.pretend_device import GPU, OnGpu, PretendGpu, on_cpu, on_gpu
from tests.support.pretend_rules import WrongDevice

CPU_ROWS = torch.tensor([2, 0])


@pytest.fixture
def gpu() -> Iterator[PretendGpu]:
    with PretendGpu() as entered:
        yield entered


def there(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel()), device=GPU).view(shape)


MISTAKES: dict[str, Callable[[], Any]] = {
    "sum": lambda: there(3) + torch.ones(3),
    "sum in place": lambda: torch.ones(3).add_(there(1)[0]),
    "product": lambda: there(3, 3) @ torch.ones(3, 3),
    "condition": lambda: torch.where(torch.ones(3) > 0, there(3), there(3)),
    "concatenation": lambda: torch.cat([there(3), torch.ones(3)]),
    "stack of scalars": lambda: torch.stack([there(1)[0], torch.ones(())]),
    "labels": lambda: F.cross_entropy(there(2, 3), torch.tensor([0, 1])),
    "class weights": lambda: F.cross_entropy(there(2, 3), there(2).long(), weight=torch.ones(3)),
    "embedding": lambda: F.embedding(CPU_ROWS, there(3, 2)),
    "index_select": lambda: there(3, 2).index_select(0, CPU_ROWS),
    "gather": lambda: there(3).gather(0, CPU_ROWS),
    "index of a CPU tensor": lambda: torch.ones(3)[there(2).long()],
    "new values": lambda: there(3).index_put_((CPU_ROWS,), torch.ones(2)),
    "weights": lambda: F.linear(there(2, 3), torch.ones(4, 3)),
    "statistics": lambda: F.batch_norm(there(2, 3), torch.zeros(3), torch.ones(3)),
    "generator": lambda: torch.randn(3, device=GPU, generator=torch.Generator()),
    "generator in place": lambda: there(3).normal_(generator=torch.Generator()),
    "permutation": lambda: torch.randperm(3, device=GPU, generator=torch.Generator()),
    "copy that is not waited for": lambda: there(3).to("cpu", non_blocking=True),
    "copy into the CPU's memory": lambda: torch.ones(3).copy_(there(3), non_blocking=True),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cuda_refuses_is_refused(gpu: PretendGpu, mistake: str) -> None:
    with pytest.raises(WrongDevice):
        MISTAKES[mistake]()


def test_numpy_is_refused(gpu: PretendGpu) -> None:
    with pytest.raises(TypeError, match=r"use .cpu\(\) first"):
        there(3).numpy()


TAKEN: dict[str, tuple[Callable[[], Any], Any, str | None]] = {  # what, its values, why the host waits
    "a number": (lambda: there(3) * 2, [0, 2, 4], None),
    "a CPU scalar": (lambda: there(3) + torch.tensor(1.0), [1, 2, 3], None),
    "a CPU scalar where it is not so": (lambda: torch.where(there(3) > 1, there(3), torch.zeros(())), [0, 0, 2], None),
    "a queued copy": (lambda: torch.ones(3).to(GPU, non_blocking=True), [1, 1, 1], None),
    "rows": (lambda: there(3)[there(2).long()], [0, 1], None),
    "a view": (lambda: there(2, 3).T[1].view(-1), [1, 4], None),
    "in place through a view": (lambda: (value := there(3), value[1:].mul_(5))[0], [0, 5, 10], None),
    "of its own kind": (lambda: torch.zeros_like(there(2)) + there(2).new_ones(2), [1, 1], None),
    "CPU indices": (lambda: there(3)[CPU_ROWS], [2, 0], "upload"),
    "values": (lambda: torch.tensor([1.0, 2.0], device=GPU), [1, 2], "upload"),
    "values of the same kind": (lambda: there(1).new_tensor([3.0]), [3], "upload"),
    "a copy": (lambda: torch.ones(2).to(GPU), [1, 1], "upload"),
    "a mask": (lambda: there(3)[there(3) > 0], [1, 2], "mask"),
    "nonzero": (lambda: there(3).nonzero().squeeze(1), [1, 2], "read"),
    "item": (lambda: torch.tensor(there(3)[2].item()), 2, "read"),
    "a truth": (lambda: torch.tensor(bool(there(3)[2] > 1)), True, "read"),
    "a comparison": (lambda: torch.tensor(torch.equal(there(3), there(3))), True, "read"),
    "cpu": (lambda: there(2).cpu(), [0, 1], "download"),
    "tolist": (lambda: torch.tensor(there(2).tolist()), [0, 1], "download"),
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_cuda_takes_is_computed_and_waits_are_counted(gpu: PretendGpu, what: str) -> None:
    compute, values, wait = TAKEN[what]
    found = compute()
    assert on_cpu(found).tolist() == values
    assert gpu.waits == ({} if wait is None else {f"{wait} elsewhere": 1})


def test_results_are_where_torch_would_have_them(gpu: PretendGpu) -> None:
    value = there(3)
    places = [
        value.device,
        (value + torch.ones(())).device,
        torch.empty_like(value, device="cpu").device,
        value.cpu().device,
    ]
    assert [place.type for place in places] == ["cuda", "cuda", "cpu", "cpu"]
    assert value.is_cuda and not value.is_cpu and value.to(GPU) is value and value.to("cuda").double().device == GPU


def test_a_network_trains_and_moves_as_on_a_gpu(gpu: PretendGpu) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    plain, images, first = copy.deepcopy(network), torch.randn(5, 3, 4, 4), network[0].weight
    network.to(GPU)
    assert network[0].weight is first and isinstance(first, nn.Parameter) and isinstance(first, OnGpu)
    for net, inputs in ((plain, images), (network, images.to(GPU))):
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            net(inputs).square().mean().backward()
            optimizer.step()
    copied = copy.deepcopy(network)
    for name, value in plain.state_dict().items():
        assert torch.equal(on_cpu(network.state_dict()[name]), value) and torch.equal(
            on_cpu(copied.state_dict()[name]), value
        )
    memory = [{on_cpu(value).data_ptr() for value in net.parameters()} for net in (network, copied)]
    assert not memory[0] & memory[1]


def test_data_can_be_replaced(gpu: PretendGpu) -> None:
    parameter = nn.Parameter(there(3))
    parameter.data = parameter.data.double() + 1
    assert parameter.dtype == torch.float64 and (parameter * 2).tolist() == [2, 4, 6]


def test_it_leaves_nothing_behind() -> None:
    before = (
        torch.cuda.is_available(),
        torch._C._only_lift_cpu_tensors(),
        torch.__future__.get_swap_module_params_on_conversion(),
    )
    with PretendGpu():
        assert torch.cuda.is_available()
        nested = on_gpu({"a": [torch.ones(2), 1], "b": None})
    assert on_cpu(nested)["a"][0].tolist() == [1, 1] and nested["a"][0].device == GPU and nested["a"][1] == 1
    now = (
        torch.cuda.is_available(),
        torch._C._only_lift_cpu_tensors(),
        torch.__future__.get_swap_module_params_on_conversion(),
    )
    assert before == now
