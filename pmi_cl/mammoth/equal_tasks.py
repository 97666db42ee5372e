"""Tell which methods of Mammoth take one number of classes for the size of every task.

A data set of Mammoth has one number of classes per task, or a list where its tasks differ. Some
methods compute with it as a number. Given a list they end in a traceback, some of them only in the
second task. Others divide labels by the number of classes of the current task, and learn wrong
targets without an error. Both are found in their source text before a run begins.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError

SIZES = {"cpt", "classes_per_task", "N_CLASSES_PER_TASK"}  # of Mammoth: a number, or a list
CURRENT = "n_classes_current_task"  # always a number
TAKE_LISTS = {"isinstance", "sum", "len", "list", "tuple", "max", "min", "cumsum", "asarray", "array", "tensor"}


def refuse_equal_tasks_only(tasks: TaskSplit, args: Any) -> None:
    """Raise UserError if the tasks differ in size and the run needs equal ones.

    Args:
        tasks: which classes each task has.
        args: Mammoth's arguments.
    """
    if tasks.equal or getattr(args, "joint", False):
        return
    if getattr(args, "label_perc", 1) != 1:
        raise UserError(f"--label_perc {args.label_perc} needs tasks of one size: say --label_perc_by_class")
    place = place_of_one_size(sys.modules["models"].get_model_class(args))
    if place:
        advice = f"this run has {tasks}; leave --classes_per_task and --base_classes out, or choose another method"
        raise UserError(f"--model {args.model} is Mammoth's and needs tasks of one size ({place}): {advice}")


def place_of_one_size(method: type) -> str:
    """Return the place ("models/bic.py, line 65") where a class of Mammoth needs tasks of one size.

    It is empty where the files of the class and of its bases have no such place.
    """
    for base in method.__mro__:
        if base.__module__.partition(".")[0] != "models":
            continue  # ours, or Python's
        file = Path(inspect.getfile(base))
        line = next(_lines(ast.parse(file.read_text(encoding="utf-8"))), None)
        if line is not None:
            parts = base.__module__.split(".")
            return f"{'/'.join(parts[:-1])}/{file.name}, line {line}"
    return ""


def _lines(node: ast.AST) -> Iterator[int]:
    """Yield the lines that compute with the size of a task as if all had it."""
    if isinstance(node, ast.If | ast.IfExp) and "isinstance" in ast.unparse(node.test):
        return  # it asks whether it has a list
    if isinstance(node, ast.BinOp) and _needs_one_size(node):
        yield node.lineno
    if isinstance(node, ast.Call) and _passes_one_size(node):
        yield node.lineno
    for child in ast.iter_child_nodes(node):
        yield from _lines(child)


def _needs_one_size(node: ast.BinOp) -> bool:
    """Return whether an operand is a list, or a label is divided by the current task's size."""
    if {_attribute(node.left), _attribute(node.right)} & SIZES:
        return True
    of_labels = isinstance(node.op, ast.FloorDiv | ast.Mod) and "label" in ast.unparse(node.left)
    return of_labels and _attribute(node.right) == CURRENT


def _passes_one_size(node: ast.Call) -> bool:
    """Return whether a function gets a list, or the size of one task, where it needs all sizes."""
    function = _attribute(node.func) or getattr(node.func, "id", "")
    if function in TAKE_LISTS:
        return False
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    given += [item for each in given if isinstance(each, ast.Tuple) for item in each.elts]
    if SIZES & {_attribute(each) for each in given}:
        return True
    divides = function == "div" or any(keyword.arg == "cpt" for keyword in node.keywords)
    return divides and CURRENT in {_attribute(each) for each in given}


def _attribute(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ""
