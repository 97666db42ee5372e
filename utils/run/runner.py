"""One run from its arguments to its last line: builds the parts, trains, and leaves the record."""

from __future__ import annotations

import contextlib
import inspect
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pmi_cl.errors import UserError
from pmi_cl.machine.device import pick_device
from pmi_cl.machine.process_settings import for_training
from pmi_cl.machine.terminal import show, tell
from pmi_cl.seeding import global_seed
from pmi_cl.utils.records import checkpoints, metrics
from pmi_cl.utils.records.resources import Phases
from pmi_cl.utils.records.run_lock import run_lock
from pmi_cl.utils.records.run_record import RunRecord, build_results, inversion_figures
from pmi_cl.utils.records.tensorboard import EventWriter
from pmi_cl.utils.run.host import RunHost
from pmi_cl.utils.run.identity import identity, tasks_to_train
from pmi_cl.utils.run.interrupts import Interrupted, Interrupts
from pmi_cl.utils.run.out_of_memory import told_in_one_line
from pmi_cl.utils.run.preflight import preflight
from pmi_cl.utils.run.progress import Progress

if TYPE_CHECKING:
    import torch

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import ContinualModel
    from pmi_cl.registry.catalogue import Entry
    from pmi_cl.utils.arguments.command_line import Resolved
    from pmi_cl.utils.run.training import Training


def run(resolved: Resolved, ends_process: bool = False) -> int:
    """Carry out a run; returns the exit code: 0, or 128 + the number of the signal that stopped it.

    Args:
        ends_process: nothing comes after it in this process; signals are ignored then once the run's end is recorded.

    Raises:
        UserError: what is wrong with the arguments, the data or the machine, before anything is written.
    """
    preflight(resolved)
    args = resolved.args
    device = _prepare_torch(args)
    progress = Progress("0" if args.non_verbose else args.progress)
    with told_in_one_line(args):
        dataset: ContinualDataset = resolved.dataset.load()(args, device, progress.update)
        model = build_model(resolved, dataset)
    with Interrupts(ends_process) as interrupts, contextlib.ExitStack() as held:
        return _Run(resolved, model, dataset, device, progress, interrupts, held).carry_out()


def build_model(resolved: Resolved, dataset: ContinualDataset) -> ContinualModel:
    """The method with its network, initialised from the run's seed alone."""
    import torch

    with global_seed(resolved.args.seed, "network"):
        backbone = build_backbone(resolved.backbone, resolved.args)
        if hasattr(backbone, "input_form"):
            dataset.present_as(backbone.input_form)
        loss = torch.nn.functional.cross_entropy
        model: ContinualModel = resolved.model.load()(backbone, loss, resolved.args, dataset.augment, dataset)
    model.check_data(dataset)
    return model


def build_backbone(entry: Entry, args: SimpleNamespace) -> Any:
    """The network of a catalogue's entry, told its options where it has any; initialised from torch's own generator."""
    factory = entry.load()
    return factory(args) if inspect.signature(factory).parameters else factory()


def _prepare_torch(args: SimpleNamespace) -> torch.device:
    """Memory, threads and, on a GPU, TF32 for what stays in float32. Returns the device of the run."""
    import torch

    device = pick_device(args.device)
    for_training(args.compile)
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision != "fp32"
    return device


class _Run:
    """The parts of one run, and what is written when."""

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
        # a checkpoint need not hold weights that never move: it has to be gone on with on the same ones
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
                args.results_path, resolved.model.name, resolved.dataset.name, args.seed, args.run_name
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
            class_names=dataset.class_names,
            tasks=dataset.tasks,
            save=self._save,
            checkpoint_minutes=args.checkpoint_minutes,
        )
        model.host = self.host
        self.training: Training = Training(model, dataset, args, self.host, self._after_task)

    def _settings(self) -> dict[str, Any]:
        """What tells the run from others: its parts, its seed, and the values that are not an option's own default."""
        always = ("model", "dataset", "backbone", "seed")
        return {
            name: value
            for name, value in vars(self.args).items()
            if name in always or self.resolved.sources[name] != "default"
        }

    def _load(self) -> dict[str, Any] | None:
        """The checkpoint to go on from, checked before anything is written."""
        args = self.args
        if args.resume:
            return checkpoints.load(RunRecord(Path(args.resume)).checkpoint, {**self.identity, "seed": args.seed})
        if not args.loadcheck:
            return None
        tasks = tasks_to_train(self.resolved, self.dataset.N_TASKS)
        return checkpoints.load_start(Path(args.loadcheck).expanduser(), self.identity, tasks)

    def carry_out(self) -> int:
        """Train what is left, and say how it went."""
        if self.loaded is not None:
            self._take_up(self.loaded)
        if not self.args.resume:
            self.record.write_args(vars(self.args), self.resolved.sources, self.weights)
            self.held.enter_context(run_lock(self.record.folder))
        self._say(
            f"{self.record.folder}: {self.identity['model']} on {self.identity['dataset']}, {self.dataset.tasks}, {self.device}"
        )
        if self.args.resume and self.training.position.task >= self.training.last_task:
            self._say("already finished: there is nothing left to train; its figures again")
        stopped = self._train()
        if stopped is not None:
            tell(f"{stopped}; go on with: --resume {self.record.folder}")
            return stopped.exit_code
        show(f"{self.headline()}\n")
        return 0

    def _train(self) -> Interrupted | None:
        """Train to the end, or to the signal that is returned, and record how it ended: whatever stops a run, it is not "running" then."""
        try:
            with told_in_one_line(self.args, lambda: self.training.position):
                self.training.run()
            self._finish()
        except Interrupted as interrupted:
            self._write_results("interrupted")
            self.interrupts.nothing_left()
            return interrupted
        except BaseException:
            with contextlib.suppress(
                Exception
            ):  # a full disk or a lost device stands in the way of this, too; what is told is the cause
                self._write_results("failed")
            raise
        finally:
            self.host.close()
        return None

    def _take_up(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint. Raises UserError where its contents are not those of this method; a new run leaves nothing then."""
        try:
            self.training.load_state(state["training"])
            self.phases.load_state_dict(state["phases"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            self.record.discard()
            path = self.args.loadcheck or self.record.checkpoint
            raise UserError(
                f"{path} does not fit this method ({type(error).__name__}): give a checkpoint of the same run"
            ) from error

    def _finish(self) -> None:
        """Leave the last results, then the last task's checkpoint, or none where none was asked for."""
        self.interrupts.nothing_left()
        self._write_results("finished")
        if self.args.savecheck == "none":
            self.record.checkpoint.unlink(missing_ok=True)

    def headline(self) -> str:
        """Return the last line: the last accuracy, as papers name it, and what else is compared."""
        matrix, micro = self.training.class_il, self.training.micro["class_il"]
        equal = self.dataset.tasks.equal
        figures = f"A_{len(matrix[-1])} = {metrics.last(matrix) if equal else micro[-1]:.2f} %"
        figures += " (last class-IL accuracy" + ("" if equal else f" over all images; {metrics.last(matrix):.2f} %")
        figures += ")" if equal else " as a mean over tasks)"
        if len(matrix) > 1:
            average = metrics.average(matrix) if equal else statistics.mean(micro)
            figures += f", average incremental {average:.2f} %, forgetting {metrics.forgetting(matrix):.2f}"
        everywhere = self._everywhere()
        if everywhere and everywhere["task_il"]["transfer"] is not None:
            figures += f", transfer {everywhere['task_il']['transfer']:.2f} % (task identity known)"
        return f"{self.identity['model']} on {self.identity['dataset']}, seed {self.args.seed}: {figures}"

    def _after_task(self) -> None:
        """A checkpoint, so that nothing can lose the task; the figures so far, in the record, in TensorBoard and on the screen."""
        training = self.training
        self.host.save()
        for setting, matrix in (("class-il", training.class_il), ("task-il", training.task_il)):
            self.host.accuracies(setting, matrix)
        for setting, figures in (self._everywhere() or {}).items():
            self.host.accuracies_everywhere(setting.replace("_", "-"), figures)
        rows = [f"{value:.1f}" for value in training.class_il[-1]]
        done = f"after task {training.position.task} of {training.last_task}"
        free, own = metrics.last(training.class_il), metrics.last(training.task_il)
        self._say(f"{done}: class-IL {free:.2f} % [{' '.join(rows)}], task-IL {own:.2f} %")
        self._write_results("running")
        if self.args.savecheck == "task":
            self._save(self.record.folder / f"checkpoint-task{training.position.task}.pt")

    def _write_results(self, status: str) -> None:
        from pmi_cl.inversion.config import inversion_dtype

        training = self.training
        self.record.write_results(
            build_results(
                model=str(self.identity["model"]),
                dataset=str(self.identity["dataset"]),
                seed=self.args.seed,
                backbone_weights=self.weights,
                status=status,
                precision=str(inversion_dtype(self.args.precision, self.device)).removeprefix("torch."),
                class_il=metrics.summary(training.class_il, training.micro["class_il"]),
                task_il=metrics.summary(training.task_il, training.micro["task_il"]),
                seconds=self.phases.seconds(),
                peak_memory_mib=self.phases.peak_memory_mib(),
                inversion=inversion_figures(self.model.inversion_figures()),
                classes_per_task=self.dataset.tasks.sizes,
                everywhere=self._everywhere(),
            )
        )

    def _everywhere(self) -> dict[str, Any] | None:
        """Return the figures on all tasks, learned or not, by setting; None where they were not asked for."""
        rows = self.training.everywhere
        return {setting: metrics.square_summary(rows[setting]) for setting in rows} if rows["task_il"] else None

    def _save(self, path: Path | None = None) -> None:
        state = {
            **self.identity,
            "seed": self.args.seed,
            "phases": self.phases.state_dict(),
            "training": self.training.state(),
        }
        checkpoints.save(path or self.record.checkpoint, state)

    def _say(self, line: str) -> None:
        """A line for who watches. That it cannot be written is no reason to end a run; that its reader closed the pipe (| head) is."""
        try:
            show("" if self.args.non_verbose else f"{line}\n")
        except UserError as error:
            tell(f"{error}; the run goes on")
        except BrokenPipeError:
            if self.interrupts.requested is None:  # else it hung up, and the run is about to save and stop
                raise
