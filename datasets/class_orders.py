"""Make class orders from the rules of published results, from a seed, or from a list."""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable

from pmi_cl.errors import UserError

# The order that Continual-CLIP, MoE-Adapters4CL, ZSCL and GIFT use on CIFAR-100. No seed is known
# that makes it.
# fmt: off
_CONTINUALCLIP = (
    87, 0, 52, 58, 44, 91, 68, 97, 51, 15, 94, 92, 10, 72, 49, 78, 61, 14, 8, 86, 84, 96, 18, 24, 32,
    45, 88, 11, 4, 67, 69, 66, 77, 47, 79, 93, 29, 50, 57, 83, 17, 81, 41, 12, 37, 59, 25, 20, 80, 73,
    1, 28, 6, 46, 62, 82, 53, 9, 31, 75, 38, 63, 33, 74, 27, 22, 36, 3, 16, 21, 60, 19, 70, 90, 89,
    43, 5, 42, 65, 76, 40, 30, 23, 85, 2, 95, 56, 48, 71, 64, 98, 13, 99, 7, 34, 55, 54, 26, 35, 39,
)
# fmt: on


def class_order(rule: str, n_classes: int) -> list[int]:
    """Return the data set's class ids in the order in which the tasks take them.

    Args:
        rule: one of the following.

            - ``natural``: ascending.
            - ``rdfcil0``, ``rdfcil1``, ``rdfcil2``: Python's shuffle with that seed. These are
              R-DFCIL's three orders. PMI uses the first. On 200 classes they are R-DFCIL's orders
              for Tiny-ImageNet.
            - ``np1993``: NumPy's permutation of the seed 1993 (PROOF, DCMI).
            - ``continualclip``: the order of Continual-CLIP, for 100 classes only.
            - ``seed:<n>``: NumPy's permutation of another seed.
            - every class id once, separated by commas.
        n_classes: the number of classes.

    Raises:
        UserError: an unknown rule, or a list that is not a permutation.
    """
    if rule in _RULES:
        return _RULES[rule](n_classes)
    if rule.startswith("seed:"):
        return _numpy_permutation(_seed(rule), n_classes)
    if "," in rule or rule.strip().isdigit():
        return _listed(rule, n_classes)
    near = difflib.get_close_matches(rule.lower().replace("-", "").replace("_", ""), _RULES, n=1, cutoff=0.0)
    allowed = f"{', '.join(_RULES)}, seed:<n> (such as seed:7), or every class id once, separated by commas"
    raise UserError(f"unknown class order '{rule}' (nearest: {near[0]}): choose from {allowed}")


def _python_shuffle(seed: int) -> Callable[[int], list[int]]:
    def rule(n_classes: int) -> list[int]:
        order = list(range(n_classes))
        random.Random(seed).shuffle(order)
        return order

    return rule


def _numpy_permutation(seed: int, n_classes: int) -> list[int]:
    import numpy

    # The published orders use the legacy generator. default_rng gives other numbers.
    return [int(k) for k in numpy.random.RandomState(seed).permutation(n_classes)]


def _continualclip(n_classes: int) -> list[int]:
    if n_classes != len(_CONTINUALCLIP):
        listed = len(_CONTINUALCLIP)
        raise UserError(
            f"class order continualclip lists {listed} classes, here are {n_classes}: use np1993 or seed:<n>"
        )
    return list(_CONTINUALCLIP)


def _seed(rule: str) -> int:
    text = rule.removeprefix("seed:")
    if not text.isdecimal() or int(text) >= 2**32:
        raise UserError(
            f"class order '{rule}': write seed:<n> with a whole number from 0 to 4294967295, e.g. seed:1993"
        )
    return int(text)


def _listed(rule: str, n_classes: int) -> list[int]:
    try:
        order = [int(part) for part in rule.split(",")]
    except ValueError:
        raise UserError(
            f"class order '{rule}': write whole numbers separated by commas, each of 0..{n_classes - 1} once"
        ) from None
    wrong = {
        "lacks": sorted(set(range(n_classes)) - set(order)),
        "repeats": sorted({k for k in order if order.count(k) > 1}),
        "has no class": sorted({k for k in order if not 0 <= k < n_classes}),
    }
    faults = [f"{fault} {_shortened(classes)}" for fault, classes in wrong.items() if classes]
    if faults:
        raise UserError(f"the class order {', '.join(faults)}: give each of 0..{n_classes - 1} exactly once")
    return order


def _shortened(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown if len(numbers) <= 8 else f"{shown} and {len(numbers) - 8} more"


_RULES: dict[str, Callable[[int], list[int]]] = {
    "natural": lambda n_classes: list(range(n_classes)),
    "rdfcil0": _python_shuffle(0),
    "rdfcil1": _python_shuffle(1),
    "rdfcil2": _python_shuffle(2),
    "np1993": lambda n_classes: _numpy_permutation(1993, n_classes),
    "continualclip": _continualclip,
}
