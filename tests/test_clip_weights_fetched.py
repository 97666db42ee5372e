"""Test CLIP weights that are not on the machine.

They are fetched once from where they are published, or the error says where to get them.
"""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pmi_cl.backbones.open_clip_library import open_clip_module
from tests.support.clip_weight_files import (
    ROOT,
    TINY,
    args_of,
    holds,
    is_quick,
    late_refusal,
    loaded,
    refusal,
    state_of,
    written,
)

pytestmark = pytest.mark.usefixtures("tiny_models")


def test_what_is_missing_is_told_with_where_to_get_it_and_where_to_put_it() -> None:
    said = refusal(args_of("openai"))
    assert (
        "the weights 'openai' of Tiny-Test are not here and cannot be fetched (--offline 1): "
        "get open_clip_model.safetensors of " in said
    )
    assert "/someone/tiny.openai and put it at data/clip/Tiny-Test-openai.safetensors (or .bin, .pt)" in said
    assert said.endswith("or say --clip_weights FILE; --backbone clip-tiny needs no download")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Return the address of a web server on this machine. It serves the folder ``served``."""
    (tmp_path / "served").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(tmp_path / "served"))

        def log_message(self, *words: Any) -> None: ...

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


def test_weights_are_fetched_once_into_open_clips_cache(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "served/tiny-laion_e1.pt")
    url = f"{server}/tiny-laion_e1.pt"
    monkeypatch.setitem(open_clip_module("pretrained")._PRETRAINED, TINY, {"laion_e1": {"url": url}})
    args = args_of("laion_e1", offline=False)
    assert holds(loaded(args), state_of())
    (tmp_path / "served/tiny-laion_e1.pt").unlink()
    assert holds(loaded(args), state_of())
    assert (tmp_path / "home/.cache/clip/tiny-laion_e1.pt").is_file()


def test_published_weights_are_known_by_their_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "renamed.bin")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    tags = {
        "other_e2": {"url": "http://127.0.0.1:9/tiny-e2-00000000.pt"},
        "laion_e1": {"url": f"http://127.0.0.1:9/tiny-e1-{digest[:8]}.pt"},
    }
    monkeypatch.setitem(open_clip_module("pretrained")._PRETRAINED, TINY, tags)
    network = loaded(args_of(path))
    assert network.weights_record["tag"] == "laion_e1" and not is_quick(network)


def test_a_server_without_the_file(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_clip_module("pretrained")._PRETRAINED, TINY, {"laion_e1": {"url": f"{server}/gone.pt"}})
    assert "cannot be fetched (HTTP Error 404" in late_refusal(args_of("laion_e1", offline=False))


def test_a_server_that_says_nothing_is_given_up_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmi_cl.backbones.clip_sources.TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/tiny.pt"
        monkeypatch.setitem(open_clip_module("pretrained")._PRETRAINED, TINY, {"laion_e1": {"url": url}})
        started = time.perf_counter()
        assert "are not here and cannot be fetched (" in refusal(args_of("laion_e1", offline=False))
        assert time.perf_counter() - started < 3


def test_the_command_says_it_in_one_line_within_seconds(tmp_path: Path) -> None:
    """A real run without a network: the hub's address leads nowhere."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hub"),
        "HOME": str(tmp_path),
    }
    words = [
        "--model",
        "zsclip",
        "--dataset",
        "seq-digits",
        "--backbone",
        "clip-vit-b-16",
        "--base_path",
        str(tmp_path / "data"),
        "--results_path",
        str(tmp_path / "runs"),
    ]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "main.py", *words], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"put it at {tmp_path}/data/clip/ViT-B-16-openai.safetensors" in done.stderr
    assert "--clip_weights FILE" in done.stderr and "--backbone clip-tiny" in done.stderr
    assert time.perf_counter() - started < 40  # of which open_clip's import takes most
    assert not (tmp_path / "runs").exists()
