"""The loop over tasks: the order of its calls is the contract's."""

import math
import os
import sys

import torch

from utils.conf import base_path, get_checkpoint_path
from utils.globals import GLOBALS

os.makedirs(os.path.join(get_checkpoint_path(), "paused"), exist_ok=True)


@torch.no_grad()
def evaluate(model, dataset, last=False):
    training, n_classes = model.net.training, dataset.get_offsets()[1]
    model.net.eval()
    free, told = [], []
    for task, loader in enumerate(dataset.test_loaders):
        if last and task < len(dataset.test_loaders) - 1:
            continue
        start, end = dataset.get_offsets(task)
        right, right_told, total = 0, 0, 0
        for images, labels in loader:
            outputs = model(images.to(model.device))
            right += int((outputs[:, :n_classes].argmax(1) == labels).sum())
            outputs[:, :start] = -math.inf
            outputs[:, end : dataset.N_CLASSES] = -math.inf
            right_told += int((outputs.argmax(1) == labels).sum())
            total += len(labels)
        free.append(100 * right / total)
        told.append(100 * right_told / total)
    model.net.train(training)
    return free, told


def log(args, free, told, task, names):
    means = [sum(part) / len(part) for part in (free, told)]
    print(
        f"Accuracy for {task + 1} task(s): \t [Class-IL]: {means[0]:.2f} % \t [Task-IL]: {means[1]:.2f} %",
        file=sys.stderr,
    )
    print(f"\tRaw accuracy values: Class-IL {free} | Task-IL {told}", file=sys.stderr)
    folder = os.path.join(base_path(), args.results_path, "class-il", *names)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "logs.pyd"), "a") as file:
        file.write(f"{free}\n")


def save(args, model, task, results):
    path = os.path.join(get_checkpoint_path(), f"{args.ckpt_name or 'run'}_{task}.pt")
    plain = {
        name: value if isinstance(value, int | float | str | list | None) else str(value)
        for name, value in vars(args).items()
    }
    plain.pop("device")
    torch.save(
        {"model": model.state_dict(), "optimizer": model.opt.state_dict(), "results": results, "args": plain}, path
    )


def load(args, model):
    assert os.path.exists(args.loadcheck), "The given checkpoint does not exist."
    saved = torch.load(args.loadcheck, map_location="cpu", weights_only=True)
    model.load_state_dict({name.replace("module.", ""): value for name, value in saved["model"].items()})
    model.net.to(model.device)
    return saved["results"]


def schedule(model, args):
    if args.lr_scheduler is None:
        return None
    model.opt = model.get_optimizer()
    return torch.optim.lr_scheduler.MultiStepLR(model.opt, args.lr_milestones)


def train_epoch(model, loader, epoch, debug):
    for step, (inputs, labels, plain) in enumerate(loader):
        if GLOBALS["SHOULD_STOP"]:
            sys.exit(0)
        if debug and step > model.get_debug_iters():
            break
        loss = model.meta_observe(
            inputs.to(model.device), labels.to(model.device), plain.to(model.device), epoch=epoch, unknown_field=1
        )
        assert not math.isnan(loss)
        assert model.opt.param_groups[0]["lr"] > 0  # the progress bar reads it


def fit(model, dataset, loader, args):
    scheduler, epoch = schedule(model, args), 0
    while True:
        model.meta_begin_epoch(epoch, dataset)
        train_epoch(model, loader, epoch, args.debug_mode)
        if scheduler is not None:
            scheduler.step()
        model.meta_end_epoch(epoch, dataset)
        epoch += 1
        if epoch >= model.args.n_epochs:  # asked after an epoch, as Mammoth does
            break


def train(model, dataset, args):
    model.net.to(model.device)
    results = []
    for _ in range(args.start_from or 0):
        dataset.get_data_loaders()
        model.meta_begin_task(dataset)
        model.meta_end_task(dataset)
    if args.loadcheck is not None:
        results = load(args, model)
    for task in range(args.start_from or 0, dataset.N_TASKS if args.stop_after is None else args.stop_after):
        model.net.train()
        loader, _ = dataset.get_data_loaders()
        if args.enable_other_metrics:
            try:
                evaluate(model, dataset, last=True)
            except Exception:
                print("Could not evaluate before `begin_task`", file=sys.stderr)
        model.meta_begin_task(dataset)
        if not args.inference_only and args.n_epochs > 0:
            fit(model, dataset, loader, args)
        model.meta_end_task(dataset)
        free, told = evaluate(model, dataset)
        results.append(free)
        log(args, free, told, task, (dataset.NAME, model.NAME))
        if args.savecheck:
            save(args, model, task, results)
