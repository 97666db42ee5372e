"""Refuse what a run asks of a method that cannot do it. Name the methods that can."""

from __future__ import annotations

from types import SimpleNamespace

from pmi_cl.errors import UserError
from pmi_cl.registry.catalogue import Catalogue, Entry


def check_method(args: SimpleNamespace, model: Entry, catalogue: Catalogue) -> None:
    """Refuse stored images where none may be, classes that have no names, and unknown statistics.

    Raises:
        UserError: says which methods can.
    """
    if args.evaluate_unseen and not model.constants.get("NAMES_UNSEEN"):
        able = _able(catalogue, "NAMES_UNSEEN")
        raise UserError(f"--evaluate_unseen 1: {model.name} cannot tell classes that it has not learned; choose {able}")
    _check_data_free(args, model, catalogue)
    _check_classifier(args, model, catalogue)


def _check_classifier(args: SimpleNamespace, model: Entry, catalogue: Catalogue) -> None:
    """Refuse a classifier without the statistics that it needs."""
    if args.classifier == "head":
        return
    flag = f"--classifier {args.classifier}"
    if not model.constants.get("KEEPS_STATISTICS"):
        able = _able(catalogue, "KEEPS_STATISTICS")
        raise UserError(
            f"{flag}: {model.name} keeps no statistics of its classes; say --classifier head, or choose {able}"
        )
    for name in ("evaluate_unseen", "synthetic_last_task"):
        if getattr(args, name, False):
            raise UserError(f"{flag}: with --{name} 1 there are classes without statistics; say --classifier head")


def _check_data_free(args: SimpleNamespace, model: Entry, catalogue: Catalogue) -> None:
    """Refuse to store real images, if none may be. Name methods that store none."""
    if not args.data_free:
        return
    if getattr(args, "replay", "") == "real":
        raise UserError("--data_free 1: --replay real stores real images of earlier tasks; say --replay synthetic")
    if model.constants.get("KEEPS_IMAGES"):
        kind = model.constants.get("BACKBONE_KIND")
        others = [entry for entry in catalogue.entries("model") if entry.constants.get("BACKBONE_KIND") == kind]
        stores = ("KEEPS_IMAGES", "JOINT")
        free = [entry.name for entry in others if not any(map(entry.constants.get, stores))]
        fault = f"--data_free 1: {model.name} stores real images of earlier tasks"
        raise UserError(f"{fault}; these store none: {', '.join(free)}")


def _able(catalogue: Catalogue, constant: str) -> str:
    """Return the names of the methods with a constant that is true."""
    return ", ".join(entry.name for entry in catalogue.entries("model") if entry.constants.get(constant))
