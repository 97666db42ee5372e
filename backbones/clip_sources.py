"""Find the weights of a CLIP.

A file or folder that was named comes first, then the folders of this machine, then open_clip's own
download.
"""

from __future__ import annotations

import json
import math
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pmi_cl.backbones.clip_plan import Plan, published, tag_of
from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.backbones.weight_files import EXTENSIONS
from pmi_cl.errors import UserError
from pmi_cl.machine.digests import digest_of
from pmi_cl.machine.web import send_request

HUB_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)  # the best first
CONFIG_NAME = "open_clip_config.json"
TIMEOUT = 3.0  # seconds to wait for the first answer of a server


@dataclass(frozen=True)
class Source:
    """Where weights are, and what is known about them.

    Attributes:
        path: the file. None: it is not fetched yet.
        tag: open_clip's name for them. None: the file does not say.
        entry: ``mean``, ``std`` and ``quick_gelu``, as open_clip lists them or as the configuration
            beside the file has them. Empty: nothing is known.
    """

    path: Path | None
    tag: str | None
    entry: Mapping[str, Any]

    @property
    def quick_gelu(self) -> bool | None:
        """Return whether the weights were trained with QuickGELU. None: unknown."""
        return bool(self.entry.get("quick_gelu")) if self.entry else None


def find_source(plan: Plan, args: SimpleNamespace) -> Source:
    """Return where the weights are on this machine.

    The source of a tag whose weights are not there has no path.

    Raises:
        UserError: the file or the tag does not exist.
    """
    if plan.path is not None:
        return _from_path(plan.path, plan.model)
    tag = tag_of(plan)
    entry = published(plan.model)[tag]
    folder = Path(args.base_path) / "clip"
    return Source(next(_local_files(folder, plan.model, tag, entry), None), tag, entry)


def _from_path(path: Path, model: str) -> Source:
    """Return the source of a file that the user named, or of the file in a folder.

    Its name and the files beside it say what is known about it.
    """
    file = _file_in(path) if path.is_dir() else path
    config = file.with_name(CONFIG_NAME)
    name = f"{file.parent.name}/{file.name}".lower().replace("-", "_")
    tags = published(model)
    tag = max((tag for tag in tags if tag in name), key=len, default=None)
    if tag is None and file.is_file():
        digest = digest_of(file)
        tag = next((tag for tag, entry in tags.items() if _is_file_of(digest, entry["url"])), None)
    if config.is_file():
        return Source(file, tag, _read_config(config))
    return Source(file, tag, tags.get(tag or "", {}))


def _file_in(folder: Path) -> Path:
    """Return the one file of weights in a folder."""
    files = sorted(file for file in folder.iterdir() if file.name.endswith(EXTENSIONS) and file.is_file())
    best = next((folder / name for name in HUB_NAMES if folder / name in files), None)
    if best is not None or len(files) == 1:
        return best or files[0]
    there = f"has {', '.join(file.name for file in files)}" if files else f"has none ({', '.join(EXTENSIONS)})"
    raise UserError(f"--clip_weights {folder}: give a folder with one file of weights; it {there}")


def _read_config(path: Path) -> dict[str, Any]:
    """Read open_clip's configuration, which lies beside weights of the hub."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        form = config.get("preprocess_cfg", {})
        known: dict[str, Any] = {key: _three_numbers(form[key]) for key in ("mean", "std") if key in form}
        if min(known.get("std", (1.0,))) <= 0:
            raise ValueError("a deviation is above 0")
        return {**known, "quick_gelu": bool(config["model_cfg"].get("quick_gelu"))}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: fetch it again, or take it away") from error


def _three_numbers(values: Sequence[float]) -> tuple[float, ...]:
    """Return a number for each colour. Raise TypeError or ValueError for anything else."""
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3 or isinstance(values, str) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{values} are not three numbers")
    return numbers


def _local_files(folder: Path, model: str, tag: str, entry: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the files with the weights of a tag.

    They are searched in our own folder, in the cache of the hub, and in those of open_clip and
    OpenAI.
    """
    published_as = Path(entry.get("url", "")).name
    names = [f"{model}-{tag}{ending}" for ending in EXTENSIONS]
    names += [f"{model}-{tag}/{name}" for name in HUB_NAMES]
    places = [folder / name for name in names]
    if published_as:
        places.append(folder / published_as)
    yield from (path for path in places if path.is_file())
    cached = Path("~/.cache/clip").expanduser() / published_as
    if published_as and cached.is_file() and _is_file_of(digest_of(cached), entry["url"], unknown=True):
        yield cached  # open_clip downloads straight to this name: it may have broken off
    if entry.get("hf_hub"):
        from huggingface_hub import try_to_load_from_cache

        repository, name = os.path.split(entry["hf_hub"])
        found = [try_to_load_from_cache(repository, file) for file in ([name] if name else HUB_NAMES)]
        yield from (Path(path) for path in found if isinstance(path, str))


def _is_file_of(digest: str, url: str, unknown: bool = False) -> bool:
    """Return whether a sha256 is that of the file at an address.

    OpenAI's addresses hold it. Those of open_clip's releases hold its first eight digits. For other
    addresses the result is ``unknown``.
    """
    found = re.search(r"/([0-9a-f]{64})/[^/]+$|-([0-9a-f]{8})[.]\w+$", url)
    return digest.startswith(found[1] or found[2]) if found else unknown


def check_reachable(plan: Plan, source: Source, args: SimpleNamespace) -> None:
    """Refuse, within seconds, weights that are missing and cannot be fetched.

    Raises:
        UserError: names the reason.
    """
    if source.path is not None:
        return
    if args.offline:
        raise _unavailable(plan, source, args, "--offline 1")
    if reason := _why_unreachable(_server(source)):
        raise _unavailable(plan, source, args, reason)


def fetch(plan: Plan, source: Source, args: SimpleNamespace) -> Path:
    """Fetch weights by open_clip's own download, into its own cache.

    Raises:
        UserError: it fails.
    """
    check_reachable(plan, source, args)
    try:
        return Path(open_clip_module("pretrained").download_pretrained(source.entry))
    except (OSError, RuntimeError) as error:
        raise _unavailable(plan, source, args, str(error).partition("\n")[0] or type(error).__name__) from error


def _server(source: Source) -> str:
    if source.entry.get("hf_hub"):
        from huggingface_hub import constants

        return str(constants.ENDPOINT)
    return str(source.entry["url"])


def _why_unreachable(url: str) -> str:
    """Return why a server does not answer. Empty: it answers, whatever it says.

    Without this check the library of the hub would try again for three quarters of a minute.
    """
    try:
        with send_request(urllib.request.Request(url, method="HEAD"), TIMEOUT):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _unavailable(plan: Plan, source: Source, args: SimpleNamespace, reason: str) -> UserError:
    """Return the error that says where the weights can be had and where they go."""
    target = Path(args.base_path) / "clip" / f"{plan.model}-{source.tag}"
    if source.entry.get("hf_hub"):
        repository, name = os.path.split(source.entry["hf_hub"])
        address = f"{name or HUB_NAMES[0]} of {_server(source)}/{repository}"
    else:
        address = str(source.entry["url"])
    return UserError(
        f"the weights '{source.tag}' of {plan.model} are not here and cannot be fetched ({reason}): "
        f"get {address} and put it at {target}.safetensors (or .bin, .pt), or say --clip_weights FILE; "
        "--backbone clip-tiny needs no download"
    )
