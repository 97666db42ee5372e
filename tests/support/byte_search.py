"""Which of many byte strings lie anywhere in much memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

WORD = 8  # bytes
MIXER = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits look random: multiplied by it, words spread over the table
TABLE_BITS = 16


def found_in(blocks: Iterable[bytes], wanted: Sequence[bytes]) -> int:
    """Return how many of the byte strings lie in any block, at any byte.

    A block is read once for all of them: one word of each string is looked up, and where it is
    found the whole string is compared.
    """
    anchors: dict[int, list[tuple[int, int]]] = defaultdict(list)  # word -> (number of the string, place in it)
    for number, text in enumerate(wanted):
        place = max(range(len(text) - WORD + 1), key=lambda start: len(set(text[start : start + WORD])))
        anchors[int.from_bytes(text[place : place + WORD], "little")].append((number, place))
    table = np.zeros(1 << TABLE_BITS, bool)
    table[_slots(np.array(list(anchors), np.dtype("<u8")))] = True
    found: set[int] = set()
    for block in blocks:
        for shift in range(min(WORD, max(0, len(block) - WORD + 1))):
            words = np.frombuffer(block, "<u8", (len(block) - shift) // WORD, shift)
            for at in np.flatnonzero(table[_slots(words)]):
                for number, place in anchors.get(int(words[at]), ()):
                    start = shift + WORD * int(at) - place
                    if number not in found and start >= 0 and block.startswith(wanted[number], start):
                        found.add(number)
    return len(found)


def _slots(words: np.ndarray) -> np.ndarray:
    slots: np.ndarray = (words * MIXER) >> np.uint64(64 - TABLE_BITS)
    return slots
