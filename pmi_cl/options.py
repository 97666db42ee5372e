"""Declares options: what a method, data set, backbone, run or command can be told.

An ``Options`` class is a frozen dataclass whose fields are made by :func:`option`, or by
:func:`new_default` where a base class has the option. Their arguments are literals, because the
command reads them from the source text (:mod:`pmi_cl.registry.source_reader`): ``--help`` imports
no torch.

An :class:`OptionSpec` holds all facts of one declaration. :func:`specs_of` takes it from an
imported class, and the source reader takes the same object from the text.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeVar

T = TypeVar("T")

SCALARS = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
TYPES = (*SCALARS, *(f"{name} | None" for name in SCALARS), *(f"tuple[{name}, ...]" for name in SCALARS))
ROLES = {
    "choice": "names what runs: no preset may say it, and a comparison shows it in a place of its own",
    "tasks": "decides how the classes are split into tasks: a comparison shows the split itself",
    "protocol": "decides which classes and images are learned and tested: a comparison has a table for each protocol",
    "network": "decides which network learns, and from which weights: a comparison has a column for it; so do "
    "options of a backbone that say no role",
    "setting": "decides how the method learns: a comparison names it in the method's row where it was typed",
    "seed": "of random numbers: runs that differ in it alone share a row of a comparison",
    "machine": "says where data lies and where a run computes: a comparison leaves it out",
    "output": "says what a run writes and shows: a comparison leaves it out",
}
BINDS = {
    "nothing": "a resumed run may have another value than its record",
    "run": "a resumed run has the value of its record",
    "checkpoint": "so has a new run that starts from a checkpoint, because the value shapes what a checkpoint holds",
}
MEMORY = {
    "inversion": "samples that are inverted, or generated, together",
    "buffer": "synthetic images of a task, which are looked at again at its end",
    "samples": "synthetic samples that are kept",
    "training": "samples in a step of training",
    "pixels": "the size of every image",
    "images": "the number of real images",
}
READERS = ("model", "dataset")


@dataclass(frozen=True)
class OptionSpec:
    """All facts of one option.

    Attributes:
        name: the name of the field; empty as long as the declaration stands in no class.
        type: the type of the field, one of ``TYPES``; empty like the name.
        default: the value without a flag or a preset. None: decided later, as the help text says.
        help: one sentence.
        unit: "epochs", "images", "steps" ... empty for a pure number.
        source: where the default comes from: a paper's section or table, ``[INF]`` (our inference)
            or ``ours``.
        choices: the words allowed, for a string.
        low, high: inclusive bounds of a number.
        above: exclusive lower bound of a number.
        role: what the value decides, a key of ``ROLES``.
        binds: how long the value has to stay the same, a key of ``BINDS``.
        memory: what takes memory in proportion to the value, a key of ``MEMORY``; empty: nothing.
        group: heading of the option in ``--help``, for the options of every run.
        read_by: "model" or "dataset": the part whose code reads an option of every run. Inside
            Mammoth that part brings the flag.
        path: whether the value is a path of the user: ``~`` in it is expanded, and it is refused
            where the system cannot look it up.
        as_in_mammoth: whether Mammoth has a flag of this name with the same meaning.
    """

    name: str
    type: str
    default: Any
    help: str
    _: KW_ONLY
    unit: str = ""
    source: str = ""
    choices: tuple[str, ...] = ()
    low: float | None = None
    above: float | None = None
    high: float | None = None
    role: str = "setting"
    binds: str = "run"
    memory: str = ""
    group: str = ""
    read_by: str = ""
    path: bool = False
    as_in_mammoth: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a fact outside its vocabulary, or a wrong type or default."""
        words = {"role": tuple(ROLES), "binds": tuple(BINDS), "memory": ("", *MEMORY), "read_by": ("", *READERS)}
        for fact, allowed in words.items():
            if getattr(self, fact) not in allowed:
                raise ValueError(f"{fact} {getattr(self, fact)!r}: choose from {', '.join(filter(None, allowed))}")
        if self.type and self.type not in TYPES:
            raise ValueError(f"the type {self.type} has no flag; choose from {'; '.join(TYPES)}")
        if self.type and not self._is_of_type(self.default):
            raise ValueError(f"the default {self.default!r} is no {self.type}")

    @property
    def scalar(self) -> str:
        """The type of one value: int, float, str or bool."""
        return self.type.removeprefix("tuple[").removesuffix(", ...]").removesuffix(" | None")

    @property
    def optional(self) -> bool:
        """Whether ``None`` is a value."""
        return self.type.endswith("| None")

    @property
    def many(self) -> bool:
        """Whether the value is a tuple."""
        return self.type.startswith("tuple[")

    def _is_of_type(self, value: Any) -> bool:
        if value is None:
            return self.optional
        values = value if self.many else (value,)
        exact = self.scalar == "bool"
        return isinstance(values, tuple) and all(
            isinstance(item, SCALARS[self.scalar]) and isinstance(item, bool) == exact for item in values
        )


@dataclass(frozen=True)
class NewDefault:
    """Another default of an inherited option.

    Attributes:
        default: the value.
        facts: the facts that differ from those of the inherited option; ``source`` is one.
    """

    default: Any
    facts: Mapping[str, Any]

    def of(self, inherited: OptionSpec, type_name: str) -> OptionSpec:
        """Return the option with this default. Raise TypeError or ValueError for a wrong fact."""
        return dataclasses.replace(inherited, type=type_name, default=self.default, **self.facts)


def option(default: Any, help: str, **facts: Any) -> Any:
    """Return a dataclass field with everything that the command has to know of an option.

    Args:
        default: the value without a flag or a preset.
        help: one sentence.
        facts: other facts of :class:`OptionSpec` by name, such as ``unit="epochs"``, ``low=1``.

    Raises:
        TypeError, ValueError: a fact that there is not, or a value that it does not take.
    """
    return dataclasses.field(default=default, metadata={"spec": OptionSpec("", "", default, help, **facts)})


def new_default(default: Any, source: str, **facts: Any) -> Any:
    """Return a dataclass field that gives an option of a base class another default.

    Args:
        default: the value without a flag or a preset.
        source: where it comes from.
        facts: other facts that change with it, such as ``help``. The rest is inherited.
    """
    return dataclasses.field(default=default, metadata={"spec": NewDefault(default, {"source": source, **facts})})


def specs_of(options_class: type) -> tuple[OptionSpec, ...]:
    """Return the options of a dataclass. Raise ValueError for a type that no flag has."""
    return tuple(_spec_in(options_class.__mro__, field.name) for field in dataclasses.fields(options_class))


def _spec_in(family: Sequence[type], name: str) -> OptionSpec:
    """Return an option as the first class of ``family`` that declares it has it."""
    owner: Any = next(kind for kind in family if name in inspect.get_annotations(kind))
    type_name = _type_name(typing.get_type_hints(owner)[name])
    declared = owner.__dataclass_fields__[name].metadata["spec"]
    if isinstance(declared, NewDefault):
        return declared.of(_spec_in(owner.__mro__[1:], name), type_name)
    return dataclasses.replace(declared, name=name, type=type_name)


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def select(options_class: type[T], values: Mapping[str, Any]) -> T:
    """Return an ``Options`` instance filled from ``values``; other fields keep their defaults."""
    names = {field.name for field in dataclasses.fields(options_class)}  # type: ignore[arg-type]
    return options_class(**{name: value for name, value in values.items() if name in names})
