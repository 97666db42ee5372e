"""Test options of the methods on a CLIP that do not go together, or do not fit the network.

They are refused before the work.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch.nn import functional as F

from pmi_cl.backbones.clip_outline import ClipOutline
from pmi_cl.datasets.input_form import InputForm
from pmi_cl.errors import UserError
from pmi_cl.models.clip.vpt import Vpt
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.utils.arguments.command_line import resolve
from tests.support.small_clips import letter_tokens, small_clip
from tests.support.small_runs import start, words_of

SMALL = ClipOutline("small-clip", 32, 24, letter_tokens, 4, 16, 16)


@pytest.mark.parametrize(
    ("method", "flags", "message"),
    [
        ("zsclip", {"prompt_template": "a digit"}, "has no place for the name: write {} there"),
        (
            "zsclip",
            {"prompt_template": "a {x} {}"},
            "'a {x} {}': {} is the place for the name, and there is no other field",
        ),
        ("moe_adapters", {"moe_top_k": 3}, "--moe_top_k 3: there are --moe_experts 2 to choose from"),
        ("coda_prompt", {"prompt_len": 5}, "--prompt_len 5: half goes to the keys"),
        ("coda_prompt", {"pool_size": 2}, "at least one component for each of the 3 tasks"),
        ("coda_prompt", {"pool_size": 33}, "only 32 directions are orthogonal in small-clip"),
        ("vpt", {"prompt_template": "a photo of the one digit {}."}, "longer than the 24 tokens that small-clip reads"),
    ],
)
def test_values_that_do_not_go_together_are_refused_before_anything_is_built(
    method: str, flags: dict[str, Any], message: str
) -> None:
    run = resolve(words_of(method, **flags))
    with pytest.raises(UserError) as caught:
        type(start(method).model).check(run.args, RunOutline(6, 3, SMALL))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "flags", "message"),
    [
        ("vpt", {"prompt_template": "a photo of the digit {}."}, "longer than the 24 tokens that small-clip reads"),
        ("coda_prompt", {"pool_size": 33}, "only 32 directions are orthogonal in small-clip"),
    ],
)
def test_values_that_do_not_fit_the_network_are_refused(method: str, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        start(method, **flags)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_form_comes_first() -> None:
    training = start("vpt")
    training.dataset.form = None
    with pytest.raises(AssertionError, match="present_as"):
        Vpt(small_clip(), F.cross_entropy, training.args, None, training.dataset)
    assert InputForm(16, (0.5,), (0.5,)).resize == "squash"
