"""Give our methods, data sets and backbones their names inside Mammoth."""

from __future__ import annotations

from collections.abc import Sequence

from pmi_cl.errors import UserError, unknown_name
from pmi_cl.mammoth.checkout import Mammoth, canonical_name
from pmi_cl.mammoth.flags import PREFIX
from pmi_cl.registry.catalogue import FAMILY, INSTALLED, Entry
from pmi_cl.registry.catalogue import KINDS as WORDS

KINDS = ("backbone", "dataset", "model")


class HostedNames:
    """Map the names in Mammoth to our entries.

    Attributes:
        entries: our entries, by kind and by the name that they have in Mammoth.
    """

    def __init__(self, mammoth: Mammoth) -> None:
        self._mammoth = mammoth
        self.entries = {kind: {self.name_of(entry): entry for entry in _entries(kind)} for kind in KINDS}

    def name_of(self, entry: Entry) -> str:
        """Return the name of an entry in Mammoth.

        This is its own name, or the name behind ``pmi-`` if Mammoth has the name already. It is the
        name behind ``pmi-cl-`` if that is the name of another entry, as ``pmi-rdfcil`` is.

        Raises:
            UserError: Mammoth has all three names.
        """
        name, mammoths = canonical_name(entry.name), self._mammoth.names[entry.kind]
        others = {canonical_name(other.name) for other in INSTALLED.entries(entry.kind) if other.name != entry.name}
        for candidate in (name, f"{canonical_name(PREFIX)}{name}", f"pmi-cl-{name}"):
            if candidate not in mammoths | others:
                return candidate
        raise UserError(
            f"Mammoth in {self._mammoth.folder} has a {entry.kind} '{name}' and every name that ours could take"
        )

    def check(self, words: Sequence[str]) -> None:
        """Raise UserError for an unknown model, data set or backbone on the command line.

        The message has the nearest names. Mammoth itself would print all names.
        """
        for _, kind, typed in _typed_names(words):
            entries = self.entries[kind].items()
            ours = [entry.name if canonical_name(entry.name) == name else name for name, entry in entries]
            known = [*ours, *self._mammoth.names[kind]]
            if canonical_name(typed) not in map(canonical_name, known):
                raise unknown_name(WORDS[kind], typed, known)

    def as_registered(self, words: Sequence[str]) -> list[str]:
        """Return the command line with our names exactly as they are registered.

        Mammoth compares the names of backbones letter by letter.
        """
        changed = list(words)
        for place, kind, typed in _typed_names(words):
            if canonical_name(typed) in self.entries[kind]:
                changed[place] = changed[place].removesuffix(typed) + canonical_name(typed)
        return changed


def _entries(kind: str) -> list[Entry]:
    """Return our entries of a kind, with every member of a family.

    Joint training is left out: Mammoth has its own, ``--joint 1``.
    """
    entries: list[Entry] = []
    for entry in INSTALLED.entries(kind):
        if entry.name.endswith(FAMILY):
            family = entry.name.removesuffix(FAMILY[1:])
            entries += [INSTALLED.find(kind, family + member) for member in entry.constants["NAMES"]]
        else:
            entries.append(entry)
    return [entry for entry in entries if not entry.constants.get("JOINT", False)]


def _typed_names(words: Sequence[str]) -> list[tuple[int, str, str]]:
    """Return (place of the word, kind, name) for each name that the command line gives."""
    found = []
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        kind, at = flag.removeprefix("--"), place if equals else place + 1
        typed = value if equals else "".join(words[at : at + 1])
        if flag == f"--{kind}" and kind in KINDS and typed and not typed.startswith("--"):
            found.append((at, kind, typed))
    return found
