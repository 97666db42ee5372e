"""Tell which methods of Mammoth take one number of classes for the size of every task.

A data set of Mammoth has one number of classes per task, or a list where its tasks differ. Some
methods compute with it as a number. Given a list they end in a traceback, some of them only in the
second task. Others divide labels by the number of classes of the current task, and learn wrong
targets without an error. Both are found in their source text before a run begins.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

SIZES = {"cpt", "classes_per_task", "N_CLASSES_PER_TASK"}  # of Mammoth: a number, or a list
CURRENT = "n_classes_current_task"  # always a number
TAKE_LISTS = {"isinstance", "sum", "len", "list", "tuple", "max", "min", "cumsum", "asarray", "array", "tensor"}


def place_of_one_size(method: type) -> str:
    """Return the place ("models/bic.py, line 65") where a class of Mammoth needs tasks of one size.

    It is empty where the files of the class and of its bases have no such place.
    """
    for base in method.__mro__:
        if base.__module__.startswith("models."):
            file = Path(inspect.getfile(base))
            for line in _lines(ast.parse(file.read_text(encoding="utf-8"))):
                return f"{'/'.join(base.__module__.split('.')[:-1])}/{file.name}, line {line}"
    return ""


def _lines(node: ast.AST) -> Iterator[int]:
    """Yield the lines that compute with the size of a task as if all had it."""
    if isinstance(node, ast.If | ast.IfExp) and "isinstance" in ast.unparse(node.test):
        return  # it asks whether it has a list
    operands: list[ast.AST] = []
    divides = False
    if isinstance(node, ast.BinOp):
        operands = [node.left, node.right]
        divides = isinstance(node.op, ast.FloorDiv | ast.Mod) and "label" in ast.unparse(node.left)
    elif isinstance(node, ast.Call) and _name(node.func) not in TAKE_LISTS:
        operands = [*node.args, *(word.value for word in node.keywords)]
        operands += [item for one in operands if isinstance(one, ast.Tuple) for item in one.elts]
        divides = _name(node.func) == "div" or any(word.arg == "cpt" for word in node.keywords)
    names = {one.attr for one in operands if isinstance(one, ast.Attribute)}
    if names & SIZES or (divides and CURRENT in names):
        yield node.lineno  # type: ignore[attr-defined]
    for child in ast.iter_child_nodes(node):
        yield from _lines(child)


def _name(function: ast.AST) -> str:
    return str(getattr(function, "attr", getattr(function, "id", "")))
