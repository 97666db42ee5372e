"""Read the command line once, and write it as Mammoth takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pmi_cl.errors import UserError, unknown_name
from pmi_cl.machine.plain_text import is_number
from pmi_cl.machine.user_paths import user_path
from pmi_cl.mammoth.bridge import KINDS, Bridge
from pmi_cl.mammoth.checkout import part
from pmi_cl.registry.catalogue import KINDS as NOUNS
from pmi_cl.registry.catalogue import canonical

PATHS = {"--base_path", "--results_path", "--checkpoint_path", "--loadcheck"}


def read_words(argv: Sequence[str]) -> dict[str, list[str]]:
    """Return the words behind each flag; ``--flag=word`` is ``--flag word``.

    Raises:
        UserError: a word without a flag, or a flag that is typed twice.
    """
    typed: dict[str, list[str]] = {}
    for word in argv:
        flag, equals, value = word.partition("=")
        if not word.startswith("-") or is_number(word):
            if not typed:
                raise UserError(f"'{word}' stands alone: write --flag value")
            typed[next(reversed(typed))].append(word)
        elif flag in typed:
            raise UserError(f"{flag} is typed twice: give it once")
        else:
            typed[flag] = [value] if equals else []
    return typed


def words_for_mammoth(typed: Mapping[str, list[str]], bridge: Bridge) -> list[str]:
    """Return the command line with names as they are registered, and lists as Mammoth takes them.

    Raises:
        UserError: an unknown name, a method that cannot be imported, or no such checkpoint.
    """
    changed = dict(typed)
    for kind in KINDS:
        if typed.get(f"--{kind}"):
            changed[f"--{kind}"] = [_known_name(kind, typed[f"--{kind}"][0], bridge), *typed[f"--{kind}"][1:]]
    for flag in PATHS & typed.keys():
        local = [value for value in typed[flag] if "://" not in value]
        changed[flag] = [str(Path.cwd() / user_path(value, flag)) for value in local] or typed[flag]
        if flag == "--loadcheck" and local and not Path(changed[flag][0]).is_file():
            advice = "--savecheck task writes them to ./checkpoints"
            raise UserError(f"--loadcheck {local[0]}: there is no such file; {advice}")
    hosted = [entry for entries in bridge.ours.values() for entry in entries.values()]
    many = {f"--{entry.flags[spec.name]}" for entry in hosted for spec in entry.new if spec.many}
    words = []
    for flag, values in changed.items():
        values = [",".join(values)] if flag in many and values else values
        bound = len(values) == 1 and values[0].startswith("-")  # argparse takes -1e-3 for a flag
        words += [f"{flag}={values[0]}"] if bound else [flag, *values]
    return words


def _known_name(kind: str, typed: str, bridge: Bridge) -> str:
    """Return a name as Mammoth looks it up. Raise UserError for one that cannot be used."""
    name, hosted = canonical(typed), bridge.ours[kind]
    if name not in hosted and name not in bridge.theirs[kind]:
        known = [one.entry.name if canonical(one.entry.name) == key else key for key, one in hosted.items()]
        raise unknown_name(NOUNS[kind], typed, [*known, *bridge.theirs[kind]])
    method = part("models").get_model_names().get(name) if kind == "model" else None
    if isinstance(method, Exception):
        file = bridge.folder / "requirements-optional.txt"
        raise UserError(f"--model {typed} is Mammoth's and needs more than its requirements.txt ({method}): see {file}")
    return name if name in hosted else typed
