"""Test paths as users type them: home folders, names that the system refuses, no permission."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.errors import UserError
from pmi_cl.machine.user_paths import DEEPEST, expanded, path_fault, path_text, user_path
from pmi_cl.options import OptionSpec, specs_of
from pmi_cl.utils.arguments.known_options import known_specs
from pmi_cl.utils.arguments.option_values import convert
from pmi_cl.utils.commands.compare import CompareOptions
from pmi_cl.utils.commands.invert.options import InvertOptions
from pmi_cl.utils.commands.trained_options import EvaluateOptions, ExportOptions, PredictOptions

pytestmark = pytest.mark.usefixtures("letters")

NOBODY = 65534  # the user id of "nobody"
DIGITS = ["--model", "sgd", "--dataset", "seq-digits"]
COMMAND_OPTIONS = (CompareOptions, InvertOptions, PredictOptions, EvaluateOptions, ExportOptions)
OF_COMMANDS = (spec for options in COMMAND_OPTIONS for spec in specs_of(options))
ALL = {spec.name: spec for spec in (*known_specs(), *OF_COMMANDS)}
PATHS = {
    "base_path",
    "results_path",
    "loadcheck",
    "resume",
    "data_dir",
    "clip_weights",
    "output",
    "plot",
    "csv",
    "json",
}
# A whole command for each path that a user may type; the path stands last.
COMMANDS = {
    **{name: [*DIGITS, "--check", f"--{name}"] for name in ("results_path", "base_path", "resume", "loadcheck")},
    "data_dir": ["--model", "sgd", "--dataset", "seq-folder", "--check", "--data_dir"],
    "domains": ["--model", "sgd", "--dataset", "seq-multi", "--check", "--domains"],
    "clip_weights": [*("--model", "zsclip", *DIGITS[2:], "--backbone", "clip-vit-b-16"), "--check", "--clip_weights"],
    "output": ["invert", "--prompt", "x", "--check", "--output"],
    "the data of invert": ["invert", "--prompt", "x", "--check", "--data_dir"],
    "compare": ["compare"],
    "csv": ["predict", ".", ".", "--csv"],
    "run": ["evaluate"],
    "the output of evaluate": ["evaluate", ".", "--output"],
    "the output of export": ["export", ".", "-o"],
    "plot": ["compare", ".", "--plot"],
    "mammoth_path": ["mammoth", "--model", "sgd", "--mammoth_path"],
}
REFUSED = {
    "~nosuch/x.png": "there is no home folder ~nosuch",
    "x" * 300 + ".png": "File name too long",
    "a/" * (DEEPEST + 1) + "x.png": f"more than {DEEPEST} folders deep",
    "a\0.png": "the system takes no such name",
    "\ud800.png": "the system takes no such name",
}


def error_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of error of a command that ends with exit code 2."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("pmi-cl: error: ")
    return err


def test_every_option_that_is_a_path_says_so() -> None:
    assert {name for name, spec in ALL.items() if spec.path} == PATHS


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("path", REFUSED, ids=["home", "long", "deep", "zero", "surrogate"])
def test_a_path_that_cannot_be_is_refused_in_one_line(
    name: str, path: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = f"seq-digits,seq-folder:{path}" if name == "domains" else path
    line = error_of([*COMMANDS[name], typed], capsys)
    if not (name == "domains" and path.startswith("\ud800")):  # refused as a text already
        assert REFUSED[path] in line and (name in line or "--" in line or name in ("compare", "run"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", list(REFUSED)[:4])
def test_so_is_that_of_a_preset(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of([*DIGITS, "--check", "--model_config", f"{path}.yaml"], capsys)
    assert "--model_config" in line and REFUSED[path] in line


@pytest.mark.parametrize("name", sorted(PATHS))
def test_a_home_folder_is_expanded(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert convert(ALL[name], "~/x", "") == str(tmp_path / "x")
    assert convert(ALL[name], "a/~x", "") == "a/~x"


def test_base_path_is_below_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--model", "sgd", "--dataset", "seq-cifar100", "--offline", "1", "--check", "--base_path", "~/data"]
    assert str(tmp_path / "data" / "cifar-100-python") in error_of(words, capsys)


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """Carry the body out as a user for whom permissions count. Root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """Return a folder that nobody may look into, in one that everybody may."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name, "closed")
        folder.mkdir(mode=0)
        yield folder
        folder.chmod(0o700)


def test_a_folder_without_permission_is_named_with_its_flag(
    closed_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = {
        "resume": [*DIGITS, "--resume", str(closed_folder), "--check"],
        "loadcheck": [*DIGITS, "--loadcheck", str(closed_folder / "x"), "--check"],
        "output": ["invert", "--prompt", "x", "--output", str(closed_folder / "x"), "--check"],
    }
    for flag, words in ways.items():
        with another_user():
            line = error_of(words, capsys)
        assert str(closed_folder) in line and "Permission denied" in line and f"--{flag}" in line


def test_the_line_names_the_longest_path_that_was_typed(tmp_path: Path) -> None:
    error = PermissionError(13, "Permission denied", str(tmp_path / "runs" / "x"))
    words = ["--base_path", str(tmp_path), f"--results_path={tmp_path / 'runs'}", "--lr"]
    assert "give --results_path another path" in str(path_fault(error, words))
    assert "or choose another path" in str(path_fault(error, ["--lr", "0.1"]))
    assert path_fault(OSError(5, "Input/output error"), words) is None


def test_an_error_of_no_file_is_a_fault_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pmi_cl.cli.listing", broken)
    with pytest.raises(OSError, match="Input/output"):
        main(["--list"])


def test_a_path_is_in_the_form_of_the_locale() -> None:
    assert path_text("é") == "é" and path_text("caf\udce9") == "caf\udce9" and expanded("x") == "x"
    with pytest.raises(UserError, match=r"--x \\ud800: the system takes no such name"):
        user_path("\ud800", "--x")


def test_a_path_keeps_bytes_that_are_not_utf_8_and_a_text_is_refused() -> None:
    path, text = ALL["results_path"], OptionSpec("name", "str", "", "")
    assert convert(path, "caf\udce9", "") == "caf\udce9"
    assert convert(text, os.fsencode("é").decode("ascii", "surrogateescape"), "") == "é"
    with pytest.raises(UserError, match="it is not UTF-8"):
        convert(text, "caf\udce9", "--name")


def test_invert_refuses_a_prompt_that_is_not_utf_8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of(["invert", "--prompt", "caf\udce9", "--output", str(tmp_path / "o")], capsys)
    assert "--prompt: it is not UTF-8" in line and not (tmp_path / "o").exists()
