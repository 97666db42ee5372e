"""The command ``pmi-cl``: explains, checks what was typed, starts a run or another command."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence

import pmi_cl
from pmi_cl.errors import RunFailed, UserError
from pmi_cl.help_text import listing, overview, own_flags
from pmi_cl.machine.process_settings import before_torch
from pmi_cl.machine.terminal import give_up_stdout, open_closed_streams, show, tell
from pmi_cl.machine.user_paths import path_fault
from pmi_cl.registry.catalogue import INSTALLED, KINDS, Catalogue, Entry
from pmi_cl.utils.arguments.command_line import CONTROLS, LONG_DASHES, all_specs, resolve, scan
from pmi_cl.utils.arguments.known_options import run_specs
from pmi_cl.utils.arguments.option_texts import table
from pmi_cl.utils.arguments.presets import chosen_backbone, decide, presets_of
from pmi_cl.utils.commands.index import COMMANDS, checker, find_command

INTERRUPTED = 130
PIPE_CLOSED = 141
LONGEST_LINE = 900  # letters of an error: a word of any length may be typed, and all options may be named


def main(argv: Sequence[str] | None = None, catalogue: Catalogue = INSTALLED) -> int:
    """Run the command and return the exit code.

    Args:
        argv: the words after the program's name; None: those of this process.
        catalogue: where models, data sets, backbones and presets are looked up.

    Returns:
        The exit code: 0; 2 after a user's mistake, with one line on stderr; 130 after Ctrl-C; else
        the exit code of the run.
    """
    open_closed_streams()
    before_torch()
    words = sys.argv[1:] if argv is None else argv
    try:
        return _command(words, catalogue, ends_process=argv is None)
    except (UserError, RunFailed) as error:
        return _refused(error)
    except BrokenPipeError:
        give_up_stdout()  # after `pmi-cl --list | head` Python must not flush into the closed pipe
        return PIPE_CLOSED
    except OSError as error:
        return _file_refused(error, words)
    except ModuleNotFoundError as error:
        return _not_installed(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def _command(argv: Sequence[str], catalogue: Catalogue, ends_process: bool = False) -> int:
    if argv and argv[0] in {command.word for command in COMMANDS if command.takes_all_words}:
        return int(find_command(argv[0]).load().run_command(argv[1:], catalogue))
    words = ["--help" if word == "-h" else word for word in argv]
    asked = {word for word in words if word in CONTROLS}
    rest = [word for word in words if word not in CONTROLS]
    if "--version" in asked:
        show(f"pmi-cl {pmi_cl.__version__}\n")
    elif "--help" in asked:
        show(_help(rest, catalogue))
    elif "--list" in asked:
        show(listing(catalogue))
    elif not (rest and _is_command(rest[0])):
        return _start(rest, asked, catalogue, ends_process)
    elif "--check" in asked:
        show(checker(find_command(rest[0]))(rest[1:], catalogue))
    else:
        return int(find_command(rest[0]).load().run_command(rest[1:], catalogue))
    return 0


def _is_command(word: str) -> bool:
    """Whether a first word is meant as a command: it is no flag."""
    return word[:1] not in f"-{LONG_DASHES}"


def _refused(error: UserError | RunFailed) -> int:
    """Print an error as one line that a terminal can show, and return its exit code."""
    line = " ".join(str(error).splitlines())
    tell(f"pmi-cl: error: {line if len(line) <= LONGEST_LINE else f'{line[:LONGEST_LINE]} ...'}")
    return error.exit_code


def _file_refused(error: OSError, words: Sequence[str]) -> int:
    """Say which file or folder cannot be used, by which flag, and return the exit code.

    This is the one place for all that the system may say of a user's paths, such as a folder
    without permission. An error that names no file is raised again.
    """
    fault = path_fault(error, words)
    if fault is None:
        raise error
    return _refused(fault)


def _not_installed(error: ModuleNotFoundError) -> int:
    """Say what to type for a library that is missing, and return the exit code.

    The most frequent cause is an environment that is not activated. A missing module of our own is
    a fault of the program: the error is raised again.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("", "pmi_cl"):
        raise error
    install = f"{sys.executable} -m pip install {package}"
    advice = f"activate the environment that you set up (. .venv/bin/activate), or type: {install}"
    tell(f"pmi-cl: error: '{package}' is not installed for {sys.executable}: {advice}")
    return UserError.exit_code


def _start(argv: Sequence[str], asked: Collection[str], catalogue: Catalogue, ends_process: bool) -> int:
    resolved = resolve(argv, catalogue)
    if not {"--check", "--estimate"} & set(asked):
        from pmi_cl.utils.run.runner import run  # imports torch: only now, when nothing that was typed is wrong

        return run(resolved, ends_process)
    from pmi_cl.utils.run.preflight import preflight, show_decided

    show_decided(preflight(resolved), resolved.args, resolved.sources)
    if resolved.args.n_tasks is None:  # only the disk tells how many classes there are
        resolved.args.n_tasks, resolved.sources["n_tasks"] = resolved.dataset.load().n_tasks(resolved.args), "data set"
    show(table(resolved.args, resolved.sources))
    for address, path in resolved.dataset.load().missing_files(resolved.args):
        tell(f"the run will first fetch {address} into {path}")
    from pmi_cl.utils.run.run_cost import told_by_records

    if "--estimate" in asked:
        from pmi_cl.utils.run.trial import estimate

        show(f"estimate: {estimate(resolved)}\n")
    else:
        show(f"estimate: {told_by_records(resolved)}\n")
    return 0


def _help(argv: Sequence[str], catalogue: Catalogue) -> str:
    if argv and _is_command(argv[0]):
        return str(find_command(argv[0]).load().help_text(argv[1:], catalogue))
    typed, _ = scan(argv, run_specs())
    found = {kind: catalogue.find(kind, typed[kind]) for kind in KINDS if kind in typed}
    if not found:
        return overview()
    chosen = {name: text for name, text in typed.items() if name in ("model_config", "backbone")}
    backbone = _backbone_of(found, chosen, catalogue)
    if backbone is not None and backbone.options:
        found["backbone"] = backbone
    if not {"model", "dataset"} <= found.keys():
        return own_flags(found.values(), {}, {}, catalogue)
    presets = presets_of(found["model"].name, catalogue, chosen.get("model_config"))
    values, sources = decide(all_specs(*found.values()), chosen, presets, found["model"], found["dataset"])
    return own_flags(found.values(), values, sources, catalogue)


def _backbone_of(found: Mapping[str, Entry], chosen: Mapping[str, str], catalogue: Catalogue) -> Entry | None:
    """Return the backbone of a run with the typed model and data set; None if it is open."""
    if "model" not in found:
        return found.get("backbone")
    if "dataset" in found:
        presets = presets_of(found["model"].name, catalogue, chosen.get("model_config"))
        name = chosen_backbone(chosen, presets, found["model"], found["dataset"])
    else:
        name = chosen.get("backbone", found["model"].constants.get("DEFAULTS", {}).get("backbone"))
    return None if name is None else catalogue.find("backbone", name)
