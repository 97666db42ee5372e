"""Define ``pmi-cl evaluate``: measure the network of a run by class and by task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pmi_cl.machine.terminal import show
from pmi_cl.options import OptionSpec, specs_of
from pmi_cl.registry.catalogue import Catalogue, Entry
from pmi_cl.utils.arguments.command_line import scan
from pmi_cl.utils.arguments.known_options import run_specs
from pmi_cl.utils.arguments.option_texts import section
from pmi_cl.utils.commands.trained_options import EvaluateOptions, one_run, output_folder, read_command, set_up

TITLE = (
    "pmi-cl evaluate RUN: the network of a finished run, by class and by task, on the test images of its "
    "own data set, or of another one with classes of the run: --dataset seq-folder --data_dir DIR. "
    "RUN is its folder, a checkpoint in it, or an exported file"
)


def help_text(argv: Sequence[str], catalogue: Catalogue) -> str:
    """Return the flags of the command, and those of a typed data set, as ``--help`` prints them."""
    own = specs_of(EvaluateOptions)
    typed = scan(argv, own)[0].get("dataset")
    text = section(TITLE, own)
    if typed is None:
        return text
    entry = catalogue.find("dataset", typed)
    return "\n".join([text, section(f"data set {entry.name}: {entry.summary}", _data_specs(entry))])


def run_command(argv: Sequence[str], catalogue: Catalogue) -> int:
    """Carry the command out and return the exit code.

    Raises:
        UserError: the run, the data set or a flag is wrong, a class is not one of the run, or a
            file cannot be written.
    """
    named = scan(argv, specs_of(EvaluateOptions))[0].get("dataset")
    entries = [catalogue.find("dataset", named)] if named else list(catalogue.entries("dataset"))
    specs = _different(spec for entry in entries for spec in _data_specs(entry))
    words, options, typed = read_command(argv, "evaluate", EvaluateOptions, specs)
    run = one_run(words, "evaluate")
    from pmi_cl.utils.trained.evaluating import evaluate_other, evaluate_own, write_evaluation  # imports torch
    from pmi_cl.utils.trained.evaluation_texts import as_text
    from pmi_cl.utils.trained.loading import find_network, load

    find_network(run)
    folder = output_folder(options.output)
    model = load(run, options.device, options.base_path, catalogue)
    set_up(options.num_threads or model.method.args.num_threads)
    if named is None and not typed:
        found = evaluate_own(model, options.base_path, catalogue)
    else:
        found = evaluate_other(model, named, typed, options.base_path, catalogue)
    if folder is not None:
        write_evaluation(folder, found)
    show(as_text(found))
    return 0


def _data_specs(entry: Entry) -> tuple[OptionSpec, ...]:
    """Return the flags that say which images of a data set are taken."""
    shared = [spec for spec in run_specs() if spec.name in ("n_classes", "offline")]
    return (*shared, *entry.options)


def _different(specs: Iterable[OptionSpec]) -> list[OptionSpec]:
    """Return the options without those whose name came before."""
    return list({spec.name: spec for spec in specs}.values())
