"""Reads the YAML of presets: names and values, and nothing of YAML that a preset has no use for."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError

MOST_BYTES = 2**20
DEEPEST = 10  # mappings and lists inside each other; a preset has four


def read_yaml(path: Path) -> Any:
    """Return the content of a file of presets.

    Raises:
        UserError: the file cannot be read, is no YAML, or has tags, anchors, aliases or merge keys
            (1 KB of those can stand for more than a machine holds).
    """
    import yaml  # here, so that a Python without it gets as far as saying so

    text = _text(path)
    try:
        fault = _beyond_presets(text)
        if fault:
            raise UserError(f"{path} is not readable as YAML of presets, {fault}")
        return yaml.load(text, _loader())
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path} is not readable as YAML{line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is not readable as YAML: {error}") from error


def _text(path: Path) -> str:
    """Return the text of a plain file. A pipe is refused: reading it could wait for ever."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read {path}: it is no plain file")
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has more than {MOST_BYTES} bytes: it is no file of presets")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path} is not readable as YAML: {error}") from error


def _beyond_presets(text: str) -> str:
    """Return which part of YAML is refused, and where; an empty text where there is none.

    The parser reads event by event. Nothing is built yet, so that depth and aliases cost nothing.
    """
    import yaml

    depth = 0
    event: Any
    for event in yaml.parse(text, _base_loader()):
        line = f"line {event.start_mark.line + 1}: "
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            return f"{line}anchors and aliases (&x, *x) are not read: write the values out"
        if getattr(event, "tag", None):
            return f"{line}tags ({event.tag}) are not read: write the value alone"
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<":
            return f"{line}merge keys (<<) are not read: write the values out"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            return f"{line}lists or mappings are more than {DEEPEST} deep: a preset has 'option: value' lines"
    return ""


def _base_loader() -> Any:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if PyYAML has it


@functools.cache
def _loader() -> Any:
    """Return a safe loader of YAML that refuses a key given twice; YAML would take the last one."""
    import yaml

    fastest: Any = _base_loader()

    class Once(fastest):
        """A loader that looks at every mapping of a document."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' is given twice: keep one", key.start_mark
                    )
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    return Once
