"""Test CLIP's towers as pieces.

They equal open_clip's at the real sizes. Empty places in a block change nothing; what is put into
them is used.
"""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pmi_cl.backbones import clip_tiny
from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.backbones.clip_pieces import BlockPiece
from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.errors import UserError
from pmi_cl.seeding import seeded
from tests.support.small_clips import letter_tokens, small_clip, small_open_clip

# name: image size, patch size, width, layers, heads, features, text width, text layers
SHAPES = {
    "ViT-B-16": (224, 16, 768, 12, 12, 512, 512, 12),
    "ViT-B-16-quickgelu": (224, 16, 768, 12, 12, 512, 512, 12),
    "ViT-B-32": (224, 32, 768, 12, 12, 512, 512, 12),
    "ViT-L-14": (224, 14, 1024, 24, 16, 768, 768, 12),
}

FullSize = tuple[str, nn.Module, ClipNetwork]


def images(count: int, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=seeded(0, "images", size))


def tokens_like(values: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(values.shape, generator=seeded(seed, "tokens"))


@pytest.fixture(scope="module", params=SHAPES)
def full_size(request: pytest.FixtureRequest) -> FullSize:
    """Return open_clip's model with random weights and the network made of it.

    One pair is kept at a time, and each is built once.
    """
    torch.manual_seed(0)
    library = open_clip_module()
    model = library.create_model(request.param, pretrained=None).eval()
    return request.param, model, ClipNetwork(model, library.get_tokenizer(request.param), name=request.param).eval()


def test_pieces_compose_to_open_clips_image_tower(full_size: FullSize) -> None:
    _, model, network = full_size
    x = images(1, 224)
    with torch.no_grad():
        expected, value = model.encode_image(x), x
        for piece in network.pieces():
            value = piece(value)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)


def test_sizes_of_the_known_networks(full_size: FullSize) -> None:
    name, _, network = full_size
    heads = network.blocks[0].block.attn.num_heads
    found = (network.image_size, network.patch_size, network.width, len(network.blocks), heads)
    assert (*found, network.feature_dim, network.text_width, len(network.text_blocks)) == SHAPES[name]
    assert len(network.pieces()) == len(network.blocks) + 3
    assert network.context_length == 77 and network.scale().item() == pytest.approx(1 / 0.07)


def test_texts_are_encoded_as_open_clip_does(full_size: FullSize) -> None:
    name, model, network = full_size
    texts = ["a bad photo of a cat.", "seven"]
    tokens = network.tokenize(texts)
    assert torch.equal(tokens, open_clip_module().get_tokenizer(name)(texts))
    with torch.no_grad():
        torch.testing.assert_close(network.encode_text(tokens), model.encode_text(tokens), rtol=1e-5, atol=1e-5)


def test_the_shipped_network_is_open_clips() -> None:
    model, network = clip_tiny.open_clip_model(), clip_tiny.clip_tiny(SimpleNamespace()).eval()
    x, tokens = images(5), network.tokenize(["a photo of the digit five.", "a seven"])
    torch.testing.assert_close(network(x), model.encode_image(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.encode_text(tokens), model.encode_text(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quick_gelu": True},
        {"ls_init_value": 0.5},
        {"no_ln_pre": True},
        {"final_ln_after_pool": True},
        {"patch_dropout": 0.5},
    ],
)
def test_variants_of_open_clips_towers(changes: dict[str, Any]) -> None:
    model = small_open_clip(**changes)
    network = ClipNetwork(model, letter_tokens, name="small").eval()
    tokens = network.tokenize(["a nine", "two"])
    torch.testing.assert_close(network.features(images(3)), model.encode_image(images(3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.encode_text(tokens), model.encode_text(tokens), rtol=1e-5, atol=1e-5)


def test_a_separate_text_tower_is_found() -> None:
    library = open_clip_module("model")
    torch.manual_seed(0)
    model = library.CustomTextCLIP(
        16, {"image_size": 16, "patch_size": 4, "width": 32, "head_width": 8, "layers": 1}, {"layers": 1}
    ).eval()
    network = ClipNetwork(model, open_clip_module().get_tokenizer("ViT-B-16"), name="custom").eval()
    tokens = network.tokenize(["a three"])
    torch.testing.assert_close(network.encode_text(tokens), model.encode_text(tokens), rtol=1e-5, atol=1e-5)


def test_maps_enter_at_piece_one() -> None:
    network = small_clip()
    maps = network.pieces()[0](images(3))
    assert maps.shape == (3, 32, 4, 4)
    assert torch.equal(network.features_from(maps, 1), network.features(images(3)))
    assert torch.equal(network(images(3)), network.features(images(3)))


def test_gradients_are_those_of_open_clip() -> None:
    model = small_open_clip()
    network = ClipNetwork(model, letter_tokens, name="small").eval()
    x, tokens = images(2).requires_grad_(), network.tokenize(["one", "two"])
    targets = [x, *(parameter for parameter in network.parameters() if parameter is not network.logit_scale)]

    def gradients(image: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((image @ text.T).square().sum(), targets)

    ours, theirs = (
        gradients(network(x), network.encode_text(tokens)),
        gradients(model.encode_image(x), model.encode_text(tokens)),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_every_parameter_is_held_once() -> None:
    model = small_open_clip()
    network = ClipNetwork(model, letter_tokens, name="small")
    assert {id(parameter) for parameter in network.parameters()} == {id(parameter) for parameter in model.parameters()}
    assert len(network.state_dict()) == len(model.state_dict())


# What can be put into a block.


class Constant(nn.Module):
    """A module that returns what it was made with and remembers its arguments."""

    def __init__(self, *values: Tensor) -> None:
        super().__init__()
        self.values, self.seen = values, []  # type: ignore[var-annotated]

    def forward(self, *arguments: Any) -> Any:
        self.seen.append(arguments)
        return self.values if len(self.values) > 1 else self.values[0]


def parts_of(piece: BlockPiece, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a block written out: attention's input, the state after it, MLP's input, output."""
    block = piece.block
    normed = block.ln_1(x)
    after = x + block.attn(normed, normed, normed, need_weights=False)[0]
    return normed, after, block.ln_2(after), after + block.mlp(block.ln_2(after))


def test_taps_see_the_inputs_and_say_what_is_used() -> None:
    piece = small_clip().blocks[1]
    x, seen = tokens_like(torch.empty(3, 17, 32)), {}

    def look(name: str, value: Tensor) -> Tensor:
        seen[name] = value
        return value

    attention, _, mlp, out = parts_of(piece, x)
    torch.testing.assert_close(piece(x, tap=look), out)
    torch.testing.assert_close(seen["attn"], attention)
    torch.testing.assert_close(seen["mlp"], mlp)
    changed = piece(x, tap=lambda name, value: value * 0 if name == "mlp" else value)
    torch.testing.assert_close(changed, parts_of(piece, x)[1] + piece.block.mlp(torch.zeros_like(x)))


def test_pieces_without_places_take_context_and_tap() -> None:
    network = small_clip()
    value = images(2)
    for piece in network.pieces():
        value = piece(value, torch.zeros(2, 5), lambda name, inner: inner)
    torch.testing.assert_close(value, network.features(images(2)))


def test_a_prompt_stands_behind_the_class_token_for_one_block() -> None:
    piece = small_clip().blocks[0]
    x, prompt = tokens_like(torch.empty(3, 17, 32)), tokens_like(torch.empty(2, 32), 1)
    piece.prompt = Constant(prompt)
    with_prompt = torch.cat([x[:, :1], prompt.expand(3, 2, 32), x[:, 1:]], dim=1)
    out = parts_of(piece, with_prompt)[3]
    torch.testing.assert_close(piece(x), out[:, [0, *range(3, 19)]])
    assert piece(x).shape == x.shape


def test_a_prefix_is_seen_by_the_attention_alone() -> None:
    piece = small_clip().blocks[0]
    x = tokens_like(torch.empty(3, 17, 32))
    keys, values = tokens_like(torch.empty(3, 4, 32), 1), tokens_like(torch.empty(3, 4, 32), 2)
    prefix = Constant(keys, values)
    piece.prefix = prefix
    context = torch.ones(3, 7)
    attention = piece.block.attn
    query, key, value = (attention.in_proj_weight @ piece.block.ln_1(x).mT + attention.in_proj_bias[:, None]).mT.chunk(
        3, dim=2
    )
    key, value = torch.cat([keys, key], 1), torch.cat([values, value], 1)
    heads = []
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        weights = torch.softmax(query[..., part] @ key[..., part].mT / math.sqrt(8), dim=2)
        heads.append(weights @ value[..., part])
    after = x + attention.out_proj(torch.cat(heads, dim=2))
    torch.testing.assert_close(
        piece(x, context), after + piece.block.mlp(piece.block.ln_2(after)), rtol=1e-5, atol=1e-5
    )
    assert prefix.seen[0][0] is context


def test_an_empty_prefix_changes_nothing() -> None:
    piece = small_clip().blocks[0]
    x, nothing = tokens_like(torch.empty(3, 17, 32)), torch.empty(3, 0, 32)
    bare = piece(x)
    piece.prefix = Constant(nothing, nothing)
    torch.testing.assert_close(piece(x), bare)


def test_an_adapter_stands_beside_the_mlp() -> None:
    piece = small_clip().blocks[0]
    x, added = tokens_like(torch.empty(3, 17, 32)), tokens_like(torch.empty(3, 17, 32), 1)
    adapter = Constant(added)
    bare = piece(x)
    piece.adapter = adapter
    torch.testing.assert_close(piece(x), bare + added)
    torch.testing.assert_close(adapter.seen[0][0], parts_of(piece, x)[1])


def test_text_adapters_are_used_under_the_causal_mask() -> None:
    network = small_clip()
    tokens = network.tokenize(["one cat", "one dog"])
    bare = network.encode_text(tokens)
    for piece in network.text_blocks:
        piece.adapter = Constant(torch.zeros(1))
    torch.testing.assert_close(network.encode_text(tokens), bare)
    network.text_blocks[0].adapter = Constant(torch.arange(24.0))  # LayerNorm would remove a constant
    assert not torch.allclose(network.encode_text(tokens), bare)
    # what follows the end of a text is not seen by it
    longer = torch.where(tokens == 0, 3, tokens)
    torch.testing.assert_close(network.encode_text(longer), network.encode_text(tokens))


def test_texts_without_their_padding_have_the_same_features() -> None:
    network = small_clip()
    tokens = network.tokenize(["one cat", "a", "the longest"])
    short = network.without_padding(tokens)
    assert short.shape == (3, 2 + len("the longest")) and torch.equal(short, tokens[:, :13])
    torch.testing.assert_close(network.encode_text(short), network.encode_text(tokens))
    network.text_tower.mask = None  # then the padding is seen
    assert torch.equal(network.without_padding(tokens), tokens)


def test_the_query_is_the_bare_towers_class_token_above_the_last_layernorm() -> None:
    network = small_clip()
    x = images(3)
    maps = network.pieces()[0](x)
    value = x
    for piece in network.pieces()[:-1]:
        value = piece(value)
    for block in network.blocks:
        block.adapter, block.prompt = Constant(torch.ones(32)), Constant(torch.ones(2, 32))
    token, norm = value[:, 0], network.pieces()[-1].norm
    centred = token - token.mean(1, keepdim=True)
    expected = centred / (centred.square().mean(1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(network.query_from(maps), expected)
    assert not network.query_from(maps).requires_grad and not torch.allclose(
        network.features(x), small_clip().features(x)
    )


def test_what_is_put_in_is_part_of_the_network_and_of_its_copies() -> None:
    network = small_clip()
    network.blocks[0].adapter = nn.Linear(32, 32)
    assert "image_tower.2.adapter.weight" in network.state_dict()
    other = copy.deepcopy(network)
    assert other.blocks[0].adapter is not network.blocks[0].adapter
    assert torch.equal(other(images(2)), network(images(2)))
    network.blocks[0].adapter = None
    assert "image_tower.2.adapter.weight" not in network.state_dict()


# Refusals.


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 16, 16), (3, 16, 16)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="takes images of 3 x 16 x 16"):
        small_clip()(torch.zeros(shape))


def test_a_text_that_is_too_long_is_refused() -> None:
    network = small_clip()
    fits = network.tokenize(["a" * 22, "b"])
    assert fits.shape == (2, 24) and fits.dtype == torch.int64
    with pytest.raises(UserError, match="'aaaaaaaaaaaaaaaaaaaaaaa' is longer than the 24 tokens that small-clip reads"):
        network.tokenize(["b", "a" * 23])


@pytest.mark.parametrize(
    ("vision", "text", "reason"),
    [
        ({"layers": [1, 1, 1, 1], "width": 16, "image_size": 32}, {}, "no ViT of open_clip's own"),
        ({"attentional_pool": True}, {}, "pools by attention"),
        ({"pool_type": "avg"}, {}, "does not end at the class token"),
        ({"image_size": (16, 32)}, {}, "not square"),
        ({}, {"pool_type": "last"}, "does not end at the end-of-text token"),
    ],
)
def test_other_towers_are_refused_with_those_that_fit(
    vision: dict[str, Any], text: dict[str, Any], reason: str
) -> None:
    sizes = {"image_size": 16, "patch_size": 4, "width": 16, "head_width": 8, "layers": 1}
    small_text = {"width": 16, "heads": 2, "layers": 1, "context_length": 8, "vocab_size": 50}
    model = open_clip_module("model").CLIP(8, {**sizes, **vision}, {**small_text, **text})
    with pytest.raises(UserError, match=f"{reason}; choose clip-vit-b-16, .* or clip-tiny"):
        ClipNetwork(model, letter_tokens, name="odd")
