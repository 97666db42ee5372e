"""The facts that stand with each option, and the lists that are derived from them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pmi_cl.options import BINDS, MEMORY, ROLES, OptionSpec, new_default, option, specs_of
from pmi_cl.registry.catalogue import INSTALLED, Entry
from pmi_cl.utils.arguments.known_options import as_in_mammoth, groups, known_specs, named_by_memory, roles, run_specs
from pmi_cl.utils.arguments.run_options import RunOptions

# The lists that were kept by hand. New since then: evaluate_unseen, domains and the sizes of tasks.
QUIET = {
    *("model", "dataset", "model_config", "seed", "results_path", "run_name", "base_path", "device", "num_threads"),
    *("progress", "non_verbose", "tensorboard", "savecheck", "checkpoint_minutes", "offline", "resume"),
    *("evaluate_unseen", "clip_weights", "savemodel"),
}
TASKS = {"n_tasks", "base_classes", "classes_per_task"}
PROTOCOL = {
    *("n_classes", "class_order", "split", "class_ids", "train_per_class", "validation", "stop_after"),
    *("data_dir", "test_fraction", "image_size"),
    *("domains", "background", "debug_mode", "allow_other_split", "data_free"),
}
NETWORK = {"backbone", "clip_gelu", "stem"}
MAY_CHANGE = {
    *("device", "num_threads", "progress", "non_verbose", "base_path", "offline", "results_path", "clip_weights"),
    *("tensorboard", "checkpoint_minutes", "stop_after", "savemodel", "data_free"),
}
IN_CHECKPOINTS = {
    *("train_per_class", "validation", "split", "image_size", "test_fraction"),
    *("cfs", "inv_axis", "synthetic_last_task", "inv_colour", "replay", "classifier"),
    *("background", "stem"),
}
GROUPS = {
    "what to run": [
        "model",
        "dataset",
        "backbone",
        "model_config",
        *("n_tasks", "base_classes", "classes_per_task"),
        "seed",
    ],
    "a smaller run": ["n_classes", "train_per_class", "stop_after", "debug_mode"],
    "evaluation": ["validation", "classifier", "data_free", "evaluate_unseen"],
    "data and results": ["base_path", "offline", "results_path", "run_name", "tensorboard"],
    "stop and go on": ["savecheck", "savemodel", "loadcheck", "resume", "checkpoint_minutes"],
    "machine": ["device", "num_threads", "precision", "compile"],
    "what is shown": ["progress", "non_verbose"],
}


def named(**facts: str) -> set[str]:
    """The names of the options with those facts."""
    return {spec.name for spec in known_specs() if all(getattr(spec, fact) == value for fact, value in facts.items())}


def test_roles_give_the_lists_of_comparisons_and_presets() -> None:
    assert named(role="choice") == {"model", "dataset", "model_config", "resume"}
    assert named(role="tasks") == TASKS
    assert named(role="protocol") == PROTOCOL
    assert set().union(*(named(role=role) for role in ("choice", "seed", "machine", "output"))) == QUIET
    assert {name for name, role in roles().items() if role == "network"} == NETWORK
    assert set(roles()) - TASKS - PROTOCOL - QUIET - NETWORK == named(role="setting") - NETWORK


def test_what_a_value_binds_gives_the_lists_of_resumption() -> None:
    assert named(binds="nothing") == MAY_CHANGE
    assert named(binds="checkpoint") == IN_CHECKPOINTS


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("sgd", set()),
        ("rdfcil", {"replay"}),
        ("zsclip", set()),
        ("pmi_rdfcil", {"cfs", "inv_colour", "replay"}),
        ("pmi_moe", {"cfs", "inv_axis", "synthetic_last_task"}),
    ],
)
def test_a_method_binds_its_own_checkpoints(model: str, names: set[str]) -> None:
    options = INSTALLED.find("model", model).options
    assert {spec.name for spec in options if spec.binds == "checkpoint"} == names


def test_memory_gives_the_advice_of_each_phase() -> None:
    found = {kind: set(names) for kind, names in named_by_memory().items()}
    assert found == {
        "inversion": {"inv_batch", "pmi_batch", "generator_batch"},
        "buffer": {"buffer_images", "replay_images"},
        "samples": {"samples_per_class"},
        "training": {"batch_size", "replay_batch"},
        "pixels": {"image_size"},
        "images": {"buffer_size", "exemplars_per_class", "n_classes", "train_per_class"},
    }


def test_what_mammoth_takes_over() -> None:
    of_training = {"lr", "batch_size", "n_epochs", "optim_mom", "optim_wd", "optimizer", "buffer_size", "seed"}
    assert as_in_mammoth() == of_training
    by_reader = {part: [spec.name for spec in run_specs() if spec.read_by == part] for part in ("model", "dataset")}
    assert by_reader == {
        "model": ["precision", "compile"],
        "dataset": ["n_tasks", "base_classes", "classes_per_task", "n_classes", "train_per_class", "offline"],
    }


def test_every_run_option_stands_in_one_group() -> None:
    assert {title: [spec.name for spec in specs] for title, specs in groups().items()} == GROUPS


def test_every_option_has_its_facts_from_the_vocabularies() -> None:
    for spec in known_specs():
        assert spec.role in ROLES and spec.binds in BINDS and spec.memory in ("", *MEMORY), spec.name
    owned = known_specs()[len(run_specs()) :]
    assert not [spec.name for spec in owned if spec.group or spec.read_by]  # facts of the options of a run


@pytest.mark.parametrize("fact", ["role", "binds", "memory", "as_in_mammoth"])
def test_declarations_of_one_name_agree(fact: str) -> None:
    """An option that several parts declare means the same in each.

    Lists by name rely on it.
    """
    found: dict[str, set[object]] = {}
    for spec in known_specs():
        found.setdefault(spec.name, set()).add(getattr(spec, fact))
    assert {name: values for name, values in found.items() if len(values) > 1} == {}


@pytest.mark.parametrize("entry", INSTALLED.entries("model"), ids=lambda entry: entry.name)
def test_an_option_is_the_same_object_from_text_and_from_the_class(entry: Entry) -> None:
    assert entry.options == specs_of(entry.load().Options)


def test_a_new_default_inherits_the_other_facts() -> None:
    @dataclass(frozen=True)
    class Base:
        """Options."""

        rate: float = option(0.1, "the rate", unit="per step", above=0, source="a paper")

    @dataclass(frozen=True)
    class Twice(Base):
        """The same with another default."""

        rate: float | None = new_default(None, "another paper", help="the rate, if any")

    (spec,) = specs_of(Twice)
    assert spec == OptionSpec(
        "rate", "float | None", None, "the rate, if any", unit="per step", above=0, source="another paper"
    )
    assert Twice().rate is None and specs_of(Base)[0].default == 0.1


def test_facts_of_an_option_have_defaults() -> None:
    assert OptionSpec("lr", "float", 1, "rate", role="setting") == OptionSpec("lr", "float", 1, "rate")


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"role": "part"}, "role 'part': choose from choice, "),
        ({"binds": "all"}, "binds 'all': choose from nothing, run, checkpoint"),
        ({"memory": "much"}, "memory 'much': choose from inversion, "),
        ({"read_by": "backbone"}, "read_by 'backbone': choose from model, dataset"),
    ],
)
def test_a_fact_outside_its_vocabulary_is_refused(facts: dict[str, str], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        option(1, "help", **facts)


@pytest.mark.parametrize(
    ("kind", "default"), [("int", 1.5), ("int", True), ("bool", 1), ("str", None), ("tuple[int, ...]", (1, "2"))]
)
def test_a_default_of_another_type_is_refused(kind: str, default: object) -> None:
    with pytest.raises(ValueError, match="is no "):
        OptionSpec("x", kind, default, "help")
    with pytest.raises(ValueError, match="has no flag"):
        OptionSpec("x", "list", [], "help")


def test_the_flags_of_a_run_are_those_of_its_dataclass() -> None:
    assert [spec.name for spec in run_specs()] == list(RunOptions.__dataclass_fields__)
