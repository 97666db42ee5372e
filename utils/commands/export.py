"""Define ``pmi-cl export``: write the network of a run as one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pmi_cl.errors import UserError
from pmi_cl.machine.terminal import show, size_text
from pmi_cl.options import specs_of
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.utils.arguments.option_texts import section
from pmi_cl.utils.commands.trained_options import ExportOptions, one_run, read_command, set_up

TITLE = (
    "pmi-cl export RUN -o FILE: the network of a finished run with its classes and its preprocessing in one "
    "file: .safetensors (all weights; pmi_cl.load() and the commands read it), .pt2 (torch.export) or .onnx"
)
ENDINGS = (".safetensors", ".pt2", ".onnx")


def help_text(argv: Sequence[str], catalogue: Catalogue) -> str:
    """Return the flags of the command, as ``--help`` prints them."""
    return section(TITLE, specs_of(ExportOptions))


def run_command(argv: Sequence[str], catalogue: Catalogue) -> int:
    """Carry the command out and return the exit code.

    Raises:
        UserError: the run or a flag is wrong, the network cannot be exported so, or the file cannot
            be written.
    """
    words, options, _ = read_command(argv, "export", ExportOptions)
    run = one_run(words, "export")
    if options.output is None:
        raise UserError("pmi-cl export needs -o FILE: name a file that ends in .safetensors, .pt2 or .onnx")
    path = Path(options.output)
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"--output {path}: give the file one of the endings {', '.join(ENDINGS)}")
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(f"--output {path}: name a file in a folder that exists")
    from pmi_cl.utils.trained.exporting import check_packages, export  # imports torch: only now
    from pmi_cl.utils.trained.loading import find_network, load

    check_packages(path)
    if find_network(run).resolve() == path.resolve():
        raise UserError(f"--output {path} is the network itself: name another file")
    set_up(options.num_threads)
    model = load(run, options.device, options.base_path, catalogue)
    size = export(model, path)
    show(f"{path}: {model.name}, {len(model.class_names)} classes, {size_text(size)}\n")
    return 0
