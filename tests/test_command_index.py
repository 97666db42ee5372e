"""Test the index of commands.

``--help`` says what each is for, each can be asked, and ``cli.py`` names none.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.utils.commands import index
from pmi_cl.utils.commands.index import COMMANDS, Command

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.word)
def test_help_names_every_command_and_each_explains_itself(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--help"]) == 0
    assert f"  {command.word} --help".ljust(30) + f"another command: {command.about}\n" in capsys.readouterr().out
    texts = []
    for words in ([command.word, "--help"], ["--help", command.word], [command.word, "-h"]):
        assert main(words) == 0
        texts.append(capsys.readouterr().out)
    assert f"pmi-cl {command.word}" in texts[0] and len(set(texts)) == 1


def test_the_command_line_names_no_command() -> None:
    tree = ast.parse((ROOT / "pmi_cl" / "cli.py").read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    for command in COMMANDS:
        assert command.word not in texts
        assert command.module not in modules


@pytest.mark.parametrize("words", [["compere"], ["compere", "--check"], ["--help", "compere"]])
def test_an_unknown_word_gives_the_nearest(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == "pmi-cl: error: unknown command 'compere': did you mean compare?\n"


def test_a_command_without_a_check_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--check"]) == 2
    assert capsys.readouterr().err == "pmi-cl: error: pmi-cl compare has no --check: leave it out\n"


def test_a_new_command_is_a_file_and_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "command_of_a_test.py").write_text(
        "def help_text(argv, catalogue):\n    return f'pmi-cl greet {argv}\\n'\n"
        "def check_command(argv, catalogue):\n    return f'checked {argv}\\n'\n"
        "def run_command(argv, catalogue):\n    print('hello', *argv)\n    return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(index, "COMMANDS", (*COMMANDS, Command("greet", "says hello", "command_of_a_test")))
    assert main(["greet", "you"]) == 3
    assert main(["greet", "you", "--check"]) == 0
    assert main(["greet", "--help"]) == 0
    assert capsys.readouterr().out == "hello you\nchecked ['you']\npmi-cl greet []\n"
