"""Define ``pmi-cl predict``: classify images with the network of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pmi_cl.errors import UserError
from pmi_cl.machine.terminal import show
from pmi_cl.machine.user_paths import user_path
from pmi_cl.options import specs_of
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.utils.arguments.option_texts import section
from pmi_cl.utils.commands.trained_options import PredictOptions, read_command, set_up

TITLE = (
    "pmi-cl predict RUN IMAGE_OR_FOLDER ...: classify images with the network of a finished run. "
    "RUN is its folder, a checkpoint in it, or an exported file. "
    "Of images in folders that have the names of classes, the accuracy is told, too"
)


def help_text(argv: Sequence[str], catalogue: Catalogue) -> str:
    """Return the flags of the command, as ``--help`` prints them."""
    return section(TITLE, specs_of(PredictOptions))


def run_command(argv: Sequence[str], catalogue: Catalogue) -> int:
    """Carry the command out and return the exit code.

    Raises:
        UserError: the run, an image or a flag is wrong, or a file cannot be written.
    """
    words, options, _ = read_command(argv, "predict", PredictOptions)
    if len(words) < 2:
        raise UserError("pmi-cl predict needs a run and images: pmi-cl predict RUN IMAGE_OR_FOLDER ...")
    from pmi_cl.utils.trained.loading import find_network, load  # imports torch: only now
    from pmi_cl.utils.trained.predicting import check_files, predict_all, write_files
    from pmi_cl.utils.trained.prediction_texts import closing_lines, table

    run, *images = words
    find_network(run)
    written = {form: Path(name) for form, name in (("csv", options.csv), ("json", options.json)) if name}
    check_files(written)
    set_up(options.num_threads)
    model = load(run, options.device, options.base_path, catalogue)
    paths = [user_path(word, "the image") for word in images]
    found = predict_all(model, paths, options.top, options.batch_size, skip=options.on_bad_image == "skip")
    write_files(written, model, found)
    show(table(found, whole=not written))
    show(closing_lines(found))
    return 0
