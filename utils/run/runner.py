"""Carry out one run, from its arguments to its last line.

Build the parts, train, and leave the record.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.errors import UserError
from pmi_cl.machine.terminal import show, size_text, tell
from pmi_cl.utils.records import checkpoints, confusion, metrics
from pmi_cl.utils.records.resources import Phases
from pmi_cl.utils.records.run_lock import run_lock
from pmi_cl.utils.records.run_record import RunRecord, build_results, inversion_figures
from pmi_cl.utils.records.tensorboard import EventWriter
from pmi_cl.utils.run.building import build_model, prepare_torch
from pmi_cl.utils.run.host import RunHost
from pmi_cl.utils.run.identity import identity, resumable, shaping_values, tasks_to_train
from pmi_cl.utils.run.interrupts import Interrupted, Interrupts
from pmi_cl.utils.run.kept_network import keep_network
from pmi_cl.utils.run.out_of_memory import explain_out_of_memory
from pmi_cl.utils.run.preflight import preflight
from pmi_cl.utils.run.progress import Progress

if TYPE_CHECKING:
    import torch

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import ContinualModel
    from pmi_cl.utils.arguments.command_line import Resolved
    from pmi_cl.utils.run.training import Training

SMOKE = "smoke"  # the preset of every method that shows whether everything runs


def run(resolved: Resolved, ends_process: bool = False) -> int:
    """Carry out a run and return the exit code.

    It is 0, or 128 + the number of the signal that stopped the run.

    Args:
        resolved: the arguments.
        ends_process: whether nothing comes after the run in this process. Signals are then ignored
            once its end is recorded.

    Raises:
        UserError: the arguments, the data or the machine are wrong. Nothing is written then.
    """
    preflight(resolved)
    args = resolved.args
    device = prepare_torch(args)
    progress = Progress("0" if args.non_verbose else args.progress)
    with explain_out_of_memory(args):
        dataset: ContinualDataset = resolved.dataset.load()(args, device, progress.update)
        model = build_model(resolved, dataset)
    with Interrupts(ends_process) as interrupts, contextlib.ExitStack() as held:
        return _Run(resolved, model, dataset, device, progress, interrupts, held).carry_out()


class _Run:
    """The parts of one run. It decides what is written when."""

    def __init__(
        self,
        resolved: Resolved,
        model: ContinualModel,
        dataset: ContinualDataset,
        device: torch.device,
        progress: Progress,
        interrupts: Interrupts,
        held: contextlib.ExitStack,
    ) -> None:
        from pmi_cl.utils.run.training import Training

        self.resolved, self.model, self.dataset, self.device = resolved, model, dataset, device
        self.interrupts, self.held = interrupts, held
        args = self.args = resolved.args
        self.identity = identity(resolved, type(dataset))
        if dataset.fingerprint:
            self.identity["data"] = dataset.fingerprint
        # A checkpoint need not hold weights that never change. It is resumed on the same ones.
        self.weights: dict[str, Any] | None = getattr(model.net, "weights_record", None)
        if self.weights is not None:
            self.identity["backbone_weights"] = str(self.weights["sha256"] or self.weights["tag"])
        if args.resume:
            held.enter_context(run_lock(Path(args.resume)))
        self.loaded = self._load()
        if args.resume:
            self.record = RunRecord(Path(args.resume))
        else:
            self.record = RunRecord.create(
                args.results_path,
                resolved.model.name,
                resolved.dataset.name,
                args.seed,
                args.run_name,
                min(dataset.N_TASKS, args.stop_after or dataset.N_TASKS),
            )
            if args.run_name not in (None, self.record.folder.name):
                tell(f"--run_name {args.run_name} is taken: this run is called {self.record.folder.name}")
        self.phases = Phases(device)
        self.host = RunHost(
            progress=progress,
            events=EventWriter(self.record.folder, args.tensorboard, settings=self._settings()),
            phases=self.phases,
            interrupts=interrupts,
            picture_folder=self.record.pictures,
            title=f"{resolved.model.name} on {resolved.dataset.name}, seed {args.seed}",
            class_names=dataset.class_names,
            tasks=dataset.tasks,
            save=self._save,
            checkpoint_minutes=args.checkpoint_minutes,
        )
        model.host = self.host
        self.training: Training = Training(model, dataset, args, self.host, self._after_task)

    def _settings(self) -> dict[str, Any]:
        """Return what tells the run from others.

        It is its parts, its seed, and the values that are not an option's own default.
        """
        always = ("model", "dataset", "backbone", "seed")
        return {
            name: value
            for name, value in vars(self.args).items()
            if name in always or self.resolved.sources[name] != "default"
        }

    def _load(self) -> dict[str, Any] | None:
        """Return the checkpoint from which to go on. It is checked before anything is written."""
        args = self.args
        if args.resume:
            return resumable(self.resolved, RunRecord(Path(args.resume)), self.identity)
        if not args.loadcheck:
            return None
        tasks = tasks_to_train(self.resolved, self.dataset.N_TASKS)
        return checkpoints.load_start(Path(args.loadcheck), self.identity, tasks)

    def carry_out(self) -> int:
        """Train what is left, and say how it went. Return the exit code."""
        if self.loaded is not None:
            self._restore(self.loaded)
        if not self.args.resume:
            self.record.write_args(vars(self.args), self.resolved.sources, self.weights)
            self.held.enter_context(run_lock(self.record.folder))
        parts = f"{self.identity['model']} on {self.identity['dataset']}"
        self._print(f"{self.record.folder}: {parts}, {self.dataset.tasks}, {self.device}")
        if self.args.resume and self.training.position.task >= self.training.tasks_to_train:
            self._print("already finished: there is nothing left to train; its figures again")
        stopped = self._train()
        if stopped is not None:
            tell(f"{stopped}; go on with: --resume {self.record.folder}")
            return stopped.exit_code
        show(f"{self.headline()}\n")
        return 0

    def _train(self) -> Interrupted | None:
        """Train to the end, or to the signal that is returned, and record how it ended.

        Whatever stops a run, it is not "running" then.
        """
        try:
            with explain_out_of_memory(self.args, lambda: self.training.position):
                self.training.run()
            self._finish()
        except Interrupted as interrupted:
            self._write_results("interrupted")
            self.interrupts.ignore_signals()
            return interrupted
        except BaseException:
            # A full disk or a lost device makes this fail, too. The error that is raised is
            # the cause.
            with contextlib.suppress(Exception):
                self._write_results("failed")
            raise
        finally:
            self.host.close()
        return None

    def _restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            UserError: its contents are not those of this method. A new run leaves nothing then.
        """
        try:
            self.training.load_state(state["training"])
            self.phases.load_state_dict(state["phases"])
        except UserError:
            self.record.discard()
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            self.record.discard()
            path = self.args.loadcheck or self.record.checkpoint
            raise UserError(
                f"{path} does not fit this method ({type(error).__name__}): give a checkpoint of the same run"
            ) from error

    def _finish(self) -> None:
        """Leave the last results and the last task's checkpoint.

        If no checkpoint was asked for, remove it.
        """
        self.interrupts.ignore_signals()
        if self.args.savemodel:  # first: a record that says "finished" has its network
            size = keep_network(self.record.model, self.model, self.model.dataset, self.args)
            use = f"use it with: pmi-cl predict {self.record.folder} IMAGES"
            self._print(f"the network is in {self.record.model.name} ({size_text(size)}); {use}")
        self._write_results("finished")
        if self.args.savecheck == "none":
            self.record.checkpoint.unlink(missing_ok=True)

    def headline(self) -> str:
        """Return the last line: the last accuracy, as papers name it, and other measures."""
        matrix, over_images = self.training.class_il, self.dataset.weighs_images
        last, average = metrics.headline(matrix, self.training.micro["class_il"], over_images)
        mean = f" over all images; {metrics.last(matrix):.2f} % as a mean over tasks" if over_images else ""
        figures = f"A_{len(matrix[-1])} = {last:.2f} % (last class-IL accuracy{mean})"
        if len(matrix) > 1:
            figures += f", average incremental {average:.2f} %, forgetting {metrics.forgetting(matrix):.2f}"
        everywhere = self._everywhere()
        if everywhere and everywhere["task_il"]["transfer"] is not None:
            figures += f", transfer {everywhere['task_il']['transfer']:.2f} % (task identity known)"
        quick = "--model_config smoke" if self.args.model_config == SMOKE else "--debug_mode 1" * self.args.debug_mode
        figures += f"; a test of the machinery, no result ({quick})" if quick else ""
        return f"{self.identity['model']} on {self.identity['dataset']}, seed {self.args.seed}: {figures}"

    def _after_task(self) -> None:
        """Save a checkpoint first, so that the task cannot be lost, then report the figures so far.

        They go to the record, to TensorBoard and to the screen.
        """
        training = self.training
        self.host.save()
        found = {}
        for setting, matrix in (("class_il", training.class_il), ("task_il", training.task_il)):
            found[setting] = metrics.headline(matrix, training.micro[setting], self.dataset.weighs_images)
            self.host.accuracies(setting.replace("_", "-"), matrix, found[setting])
        self.host.by_class(training.confusion)
        for setting, figures in (self._everywhere() or {}).items():
            self.host.accuracies_everywhere(setting.replace("_", "-"), figures)
        rows = [f"{value:.1f}" for value in training.class_il[-1]]
        done = f"after task {training.position.task} of {training.tasks_to_train}"
        free, own = found["class_il"][0], found["task_il"][0]
        self._print(f"{done}: class-IL {free:.2f} % [{' '.join(rows)}], task-IL {own:.2f} %")
        self._write_results("running")
        if self.args.savecheck == "task":
            self._save(self.record.folder / f"checkpoint-task{training.position.task}.pt")

    def _write_results(self, status: str) -> None:
        from pmi_cl.inversion.config import inversion_dtype

        training = self.training
        class_il = metrics.summary(training.class_il, training.micro["class_il"])
        self.record.write_results(
            build_results(
                model=str(self.identity["model"]),
                dataset=str(self.identity["dataset"]),
                seed=self.args.seed,
                backbone_weights=self.weights,
                status=status,
                precision=str(inversion_dtype(self.args.precision, self.device)).removeprefix("torch."),
                class_il=class_il,
                task_il=metrics.summary(training.task_il, training.micro["task_il"]),
                seconds=self.phases.seconds(),
                peak_memory_mib=self.phases.peak_memory_mib(),
                inversion=inversion_figures(self.model.inversion_figures()),
                classes_per_task=self.dataset.tasks.sizes,
                over_images=self.dataset.weighs_images,
                images={"train": len(self.dataset.train.labels), "test": len(self.dataset.test.labels)},
                without_effect=self._without_effect(),
                everywhere=self._everywhere(),
                skipped_images=self.dataset.skipped_images,
                stored=training.figures.stored(),
                classifiers=training.figures.by_classifier(self.model.classified_by, class_il),
                by_class=confusion.summary(training.confusion, self.dataset.class_names),
            )
        )

    def _without_effect(self) -> list[str]:
        """Return the options that were to make the run smaller, and took nothing away."""
        idle = self.dataset.without_effect(self.args)
        return [*idle, "stop_after"] if (self.args.stop_after or 0) >= self.dataset.N_TASKS else idle

    def _everywhere(self) -> dict[str, Any] | None:
        """Return the figures on all tasks, learned or not, by setting.

        None: they were not asked for.
        """
        rows = self.training.everywhere
        return {setting: metrics.square_summary(rows[setting]) for setting in rows} if rows["task_il"] else None

    def _save(self, path: Path | None = None) -> None:
        state = {
            **self.identity,
            "seed": self.args.seed,
            "values": shaping_values(self.resolved),
            "phases": self.phases.state_dict(),
            "training": self.training.state(),
        }
        checkpoints.save(path or self.record.checkpoint, state)

    def _print(self, line: str) -> None:
        """Print a line for the user.

        If it cannot be written, the run goes on. If its reader closed the pipe (``| head``), the
        run ends.
        """
        try:
            show("" if self.args.non_verbose else f"{line}\n")
        except UserError as error:
            tell(f"{error}; the run goes on")
        except BrokenPipeError:
            if self.interrupts.requested is None:  # else it hung up: the run saves and stops next
                raise
