"""Test the shipped CLIP: its file, what it recognises without training, its tool."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from pmi_cl.backbones import clip_tiny
from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.cli import main
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.errors import UserError
from pmi_cl.seeding import seeded

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def network() -> ClipNetwork:
    """Return the backbone as a run gets it."""
    return clip_tiny.clip_tiny(SimpleNamespace())


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    """Import tools/train_clip_tiny.py.

    It finds its neighbour glyphs.py as it does when it is started.
    """
    sys.path.insert(0, str(ROOT / "tools"))
    yield importlib.import_module("train_clip_tiny")
    sys.path.remove(str(ROOT / "tools"))


@pytest.fixture(scope="module")
def glyphs(tool: ModuleType) -> ModuleType:
    """Import tools/glyphs.py."""
    return importlib.import_module("glyphs")


def test_the_file_is_small() -> None:
    assert clip_tiny.WEIGHTS.stat().st_size <= 12e6


@torch.no_grad()
def test_real_digits_are_recognised_without_training(network: ClipNetwork) -> None:
    dataset = SeqDigits(SimpleNamespace(), "cpu")
    mean, std = (torch.tensor(values)[:, None, None] for values in (network.mean, network.std))
    images = torch.cat([dataset.train.images, dataset.test.images]).float() / 255
    features = torch.cat([network.features(part) for part in ((images - mean) / std).split(256)])
    each = []
    for template in dataset.TEMPLATES:
        text = network.encode_text(network.tokenize([template.format(name) for name in dataset.prompt_names]))
        each.append(torch.nn.functional.normalize(text, dim=1))
    predicted = (features @ torch.stack(each).mean(0).T).argmax(1)
    right = (predicted == torch.cat([dataset.train.labels, dataset.test.labels])).float().mean()
    assert len(features) == 1797
    assert right >= 0.5


@torch.no_grad()
def test_pieces_are_encode_image(network: ClipNetwork) -> None:
    images = torch.randn(3, 3, 16, 16, generator=seeded(0))
    x = images
    for piece in network.pieces():
        x = piece(x)
    torch.testing.assert_close(x, clip_tiny.open_clip_model().encode_image(images), atol=1e-5, rtol=0)
    assert (network.image_size, network.patch_size, network.width, network.feature_dim) == (16, 4, 128, 128)


def test_its_outline_is_what_will_be_built(network: ClipNetwork) -> None:
    outline = clip_tiny.outline(SimpleNamespace())
    assert (outline.name, outline.width, outline.context_length) == (
        network.name,
        network.width,
        network.context_length,
    )
    texts = ["a photo of the digit five.", "six"]
    assert torch.equal(outline.tokenize(texts), network.tokenize(texts))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pool_size", "3"], "--pool_size 3: give at least one component for each of the 5 tasks"),
        (["--pool_size", "129"], "--pool_size 129: only 128 directions are orthogonal in clip-tiny, give no more"),
        (["--prompt_template", "{}" + " digit" * 80], "tokens that clip-tiny reads: shorten it"),
        (
            ["--clip_weights", "random"],
            "--clip_weights is no flag of this run: the weights of clip-tiny come with the package",
        ),
    ],
)
def test_a_check_refuses_what_a_run_would(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "coda_prompt", "--dataset", "seq-digits", *words, "--check"]) == 2
    assert message in capsys.readouterr().err


@torch.no_grad()
def test_loading_twice_gives_the_same_and_leaves_the_global_generator_alone(network: ClipNetwork) -> None:
    torch.manual_seed(5)
    again = clip_tiny.clip_tiny(SimpleNamespace())
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    for (name, first), second in zip(network.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(first, second), name
    assert network.weights_record["sha256"] == again.weights_record["sha256"] is not None
    tokens = network.tokenize(["a zebra crossing"])  # words that training never saw
    assert network.encode_text(tokens).isfinite().all()


def test_damaged_or_missing_weights_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "clip_tiny.safetensors"
    monkeypatch.setattr(clip_tiny, "WEIGHTS", damaged)
    with pytest.raises(UserError, match="missing: install pmi-cl again"):
        clip_tiny.clip_tiny(SimpleNamespace())
    damaged.write_bytes((ROOT / "backbones" / damaged.name).read_bytes()[:5000])
    with pytest.raises(UserError, match="damaged"):
        clip_tiny.clip_tiny(SimpleNamespace())


def test_glyphs_become_counts_as_the_real_digits_are(glyphs: ModuleType) -> None:
    font = next(path for path in glyphs.font_files() if path.name == "DejaVuSans.ttf")
    rendered = glyphs.render([font])
    assert set(rendered.concepts.tolist()) == set(range(36))
    rows = torch.arange(len(rendered.concepts))
    counts = glyphs.draw(rendered, rows, seeded(0))
    assert counts.shape == (len(rows), 8, 8)
    assert counts.dtype == torch.uint8
    assert counts.max() <= 16
    assert (counts > 0).any(dim=2)[:, [0, -1]].float().mean() > 0.95  # cut out: ink at the top and at the bottom
    assert torch.equal(counts, glyphs.draw(rendered, rows, seeded(0)))
    assert not torch.equal(counts, glyphs.draw(rendered, rows, seeded(1)))


def test_blocks_are_counted(glyphs: ModuleType) -> None:
    bitmap = torch.rand(1, 32, 32, generator=seeded(0)) < 0.4
    counts = glyphs.counts(bitmap)[0]
    for row in range(8):
        for column in range(8):
            assert counts[row, column] == bitmap[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].sum()
    assert glyphs.counts(torch.ones(1, 32, 32, dtype=torch.bool)).unique().tolist() == [16]


def test_distances_are_those_of_scipy(glyphs: ModuleType) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    ink = torch.rand(3, 48, 48, generator=seeded(0)) < 0.01
    expected = torch.stack([torch.from_numpy(ndimage.distance_transform_edt(~picture)) for picture in ink.numpy()])
    torch.testing.assert_close(glyphs.distance(ink), expected.float())


def test_a_bar_is_thinned_to_its_middle_line(glyphs: ModuleType) -> None:
    ink = torch.zeros(1, 20, 20, dtype=torch.bool)
    ink[0, 3:17, 8:13] = True
    line = glyphs.thinned(ink)[0]
    assert line.sum(dim=1).max() == 1
    assert line[6:14, 10].all()
    assert not (line & ~ink[0]).any()


def test_the_loss_is_the_sum_over_all_positives(tool: ModuleType) -> None:
    generator = seeded(0)
    images, texts = torch.randn(5, 4, generator=generator), torch.randn(3, 4, generator=generator)
    concepts = torch.tensor([0, 2, 2, 0, 2])  # concept 1 has no picture
    logits = 2.0 * images @ texts.T
    by_image = sum(-logits[row].log_softmax(0)[concept] for row, concept in enumerate(concepts.tolist())) / 5
    by_text = (-logits[:, 0].log_softmax(0)[[0, 3]].mean() - logits[:, 2].log_softmax(0)[[1, 2, 4]].mean()) / 2
    loss = tool.contrastive_loss(images, texts, concepts, torch.tensor(2.0))
    torch.testing.assert_close(loss, (by_image + by_text) / 2)


def test_training_starts_repeats_itself_and_is_stored(
    tool: ModuleType, glyphs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    rendered = glyphs.render([path for path in glyphs.font_files() if path.name == "DejaVuSans.ttf"])
    first, again = (tool.packed(tool.train(rendered, tool.Recipe(steps=2, batch=16))) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    save_file(first, tmp_path / "clip_tiny.safetensors")
    monkeypatch.setattr(clip_tiny, "WEIGHTS", tmp_path / "clip_tiny.safetensors")
    loaded = tool.packed(clip_tiny.open_clip_model())
    assert all(torch.equal(value, loaded[name]) for name, value in first.items())


def test_held_out_fonts_are_there(tool: ModuleType, glyphs: ModuleType) -> None:
    pytest.importorskip(
        "matplotlib", minversion="3.11", reason="the weights are made with matplotlib 3.11; older ones have fewer fonts"
    )
    assert set(tool.HELD_OUT) <= {path.name for path in glyphs.font_files()}


def test_captions_hold_what_runs_ask(tool: ModuleType) -> None:
    for template in (*SeqDigits.TEMPLATES, SeqDigits.PROMPT, "a bad photo of a {}."):
        assert any(template.format(name) in tool.captions(5) for name in ("5", "five")), template
