"""The arguments of a resumed run: those in its record, and the typed flags that may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import excerpt
from pmi_cl.options import OptionSpec
from pmi_cl.registry.catalogue import canonical
from pmi_cl.utils.arguments.option_texts import shown
from pmi_cl.utils.arguments.option_values import convert
from pmi_cl.utils.records.record_shape import check_arguments, read_json, refuse_newer

NAMES = ("model", "dataset", "backbone", "model_config")  # compared without case, and _ as -


def read_arguments(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (values, sources) by option name, as ``args.json`` holds them, unchecked.

    Raises:
        UserError: the file is missing, damaged, or not the record of a run.
    """
    try:
        content = read_json(path)
        refuse_newer(content, path)
        args = content["args"]
        check_arguments(args)
        values = {name: item["value"] for name, item in args.items()}
        if values["backbone"] is None:
            raise ValueError("a run has a backbone")
        return values, {name: str(item["source"]) for name, item in args.items()}
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give the folder of a run to --resume") from error
    except (ValueError, LookupError) as error:
        raise UserError(
            f"{path} is damaged or not a run's args.json: start the run again, or give another folder to --resume"
        ) from error


def check_recorded(values: Mapping[str, Any], specs: Sequence[OptionSpec], path: Path) -> dict[str, Any]:
    """Return the recorded values in the types of their options.

    An option that is newer than the record has its default: a run of before is as without it.

    Raises:
        UserError: a value is wrong, or of an option that this version does not have.
    """
    unknown = sorted(set(values) - {spec.name for spec in specs})
    if unknown:
        raise UserError(
            f"{path} was written by another version of pmi-cl (it has: {excerpt(', '.join(unknown))}): "
            "go on with that version"
        )
    recorded = [spec for spec in specs if spec.name in values]
    found = {
        spec.name: convert(spec, values[spec.name], f"{path}: {spec.name} {excerpt(values[spec.name])}")
        for spec in recorded
    }
    return {spec.name: found.get(spec.name, spec.default) for spec in specs}


def changes(
    values: Mapping[str, Any], typed: Mapping[str, str], specs: Sequence[OptionSpec], finished: Path | None = None
) -> dict[str, Any]:
    """Return the values of the typed flags that may change. Other flags have to repeat the record.

    Args:
        finished: the folder of the run if it is finished. The error then says how it can be used.

    Raises:
        UserError: a flag that would make it another run.
    """
    by_name = {spec.name: spec for spec in specs}
    names = [name for name in typed if name != "resume"]
    wanted = {name: convert(by_name[name], typed[name], f"--{name} {excerpt(typed[name])}") for name in names}
    for name, value in wanted.items():
        same = canonical(str(value)) == canonical(str(values[name])) if name in NAMES else value == values[name]
        if by_name[name].binds != "nothing" and not same:
            recorded = f"no --{name}" if values[name] in (None, ()) else shown(values[name])
            if finished:
                raise UserError(
                    f"--{name} {typed[name]}: the run is finished, with {recorded}; "
                    f"start a new run, or use its network: pmi-cl predict {finished} IMAGES, "
                    f"pmi-cl evaluate {finished}, pmi-cl export {finished} -o model.safetensors"
                )
            raise UserError(
                f"--{name} {typed[name]}: the run that goes on has {recorded}; leave --{name} out, or start a new run"
            )
    return {name: value for name, value in wanted.items() if by_name[name].binds == "nothing"}
