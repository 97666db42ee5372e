"""Test class orders against the published lists, by their hashes, and the refusal of what is no
order.
"""

from __future__ import annotations

import hashlib
import random

import numpy
import pytest

from pmi_cl.datasets.class_orders import class_order
from pmi_cl.errors import UserError


@pytest.mark.parametrize(
    ("rule", "n_classes", "digest"),
    [  # sha256 of the comma-joined list, first 16 digits
        ("rdfcil0", 100, "ceb1f8dfeeb81d02"),
        ("rdfcil1", 100, "3479baf223fb2dde"),
        ("rdfcil2", 100, "caaf5db8ee5050cd"),
        ("rdfcil0", 200, "b0c978e9a0ad7a3c"),
        ("rdfcil1", 200, "916b68e88779a5d4"),
        ("rdfcil2", 200, "4eb0791dc83853dd"),
        ("np1993", 100, "997a048a5344d216"),
        ("np1993", 200, "1d364b99a5915405"),
        ("seed:1993", 100, "997a048a5344d216"),
        ("continualclip", 100, "62e36f48cf4f51c7"),
    ],
)
def test_published_orders(rule: str, n_classes: int, digest: str) -> None:
    order = class_order(rule, n_classes)
    assert sorted(order) == list(range(n_classes))
    assert hashlib.sha256(",".join(map(str, order)).encode()).hexdigest()[:16] == digest


def test_first_classes_of_the_order_of_pmi() -> None:
    assert class_order("rdfcil0", 100)[:10] == [23, 8, 11, 7, 48, 13, 1, 91, 94, 54]


def test_natural_and_listed_orders() -> None:
    assert class_order("natural", 4) == [0, 1, 2, 3]
    assert class_order("2, 0,3,1", 4) == [2, 0, 3, 1]


def test_other_random_numbers_are_left_alone() -> None:
    random.seed(5)
    numpy.random.seed(5)
    expected = random.random(), numpy.random.random()
    random.seed(5)
    numpy.random.seed(5)
    class_order("rdfcil0", 50)
    class_order("np1993", 50)
    assert (random.random(), numpy.random.random()) == expected


@pytest.mark.parametrize(
    ("rule", "n_classes", "message"),
    [
        ("0,1,3", 4, "lacks 2:"),
        ("0,1,1,3", 4, "lacks 2, repeats 1:"),
        ("0,1,2,3,9", 4, "has no class 9:"),
        ("0,1,2,3,-1", 4, "has no class -1:"),
        ("0", 20, "and 11 more"),
        ("0,one,2", 3, "whole numbers"),
        ("0,1,", 3, "whole numbers"),
        ("seed:x", 10, "seed:1993"),
        ("seed:-1", 10, "seed:1993"),
        ("seed:4294967296", 10, "seed:1993"),
        (
            "np-1993",
            10,
            "(nearest: np1993): choose from natural, rdfcil0, rdfcil1, rdfcil2, np1993, continualclip, seed:<n>",
        ),
        ("RDFCIL", 10, "unknown class order 'RDFCIL' (nearest: rdfcil"),
        ("foo", 10, "or every class id once, separated by commas"),
        ("continual_clip", 100, "(nearest: continualclip)"),
        ("seed", 10, "seed:<n>"),
        ("continualclip", 10, "100 classes"),
    ],
)
def test_what_is_no_order_is_refused(rule: str, n_classes: int, message: str) -> None:
    with pytest.raises(UserError) as caught:
        class_order(rule, n_classes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
