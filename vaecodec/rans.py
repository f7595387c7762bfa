"""The rANS coder, in plain Python and by constriction: a stack of table entries <-> 32-bit words.

Section "rANS stream" of docs/format.md. A coder knows nothing of symbols: it codes entries
0 .. n - 1 of a row by its cumulative frequencies, uint32 (n + 1,), which increase strictly from 0
to 2**24.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

PRECISION = 24  # bits
TOTAL = 1 << PRECISION  # the frequencies of a row add up to this
STATE_BITS = 64
WORD_BITS = 32

_LOW = 1 << (STATE_BITS - WORD_BITS)  # a state below this is refilled while there are words
_WORD_MASK = (1 << WORD_BITS) - 1


class PortableCoder:
    """The coder in plain Python, with the interface of constriction's AnsCoder.

    Its models are what `portable_model` returns. `words`: uint32 (n,), of which the last is not
    zero, to decode them; None to encode.
    """

    def __init__(self, words: NDArray[np.uint32] | None = None) -> None:
        self._words: list[int] = [] if words is None else words.tolist()
        self._state = 0
        for _ in range(min(2, len(self._words))):
            self._state = self._state << WORD_BITS | self._words.pop()

    def encode_reverse(self, entries: NDArray[np.int32], model: list[int]) -> None:
        """Push `entries`, int32 (n,), the last one first."""
        state, words = self._state, self._words
        for entry in reversed(entries.tolist()):
            left = model[entry]
            frequency = model[entry + 1] - left
            if state >> (STATE_BITS - PRECISION) >= frequency:
                words.append(state & _WORD_MASK)
                state >>= WORD_BITS
            prefix, remainder = divmod(state, frequency)
            state = prefix << PRECISION | left + remainder
        self._state = state

    def decode(self, model: list[int], amount: int) -> NDArray[np.int32]:
        """Pop `amount` entries, int32 (amount,)."""
        state, words = self._state, self._words
        entries = [0] * amount
        for i in range(amount):
            quantile = state & (TOTAL - 1)
            entry = bisect_right(model, quantile) - 1
            left = model[entry]
            state = (state >> PRECISION) * (model[entry + 1] - left) + quantile - left
            if state < _LOW and words:
                state = state << WORD_BITS | words.pop()
            entries[i] = entry
        self._state = state
        return np.array(entries, np.int32)

    def is_empty(self) -> bool:
        """Whether nothing is left of what was pushed (with words left the state is not 0)."""
        return self._state == 0

    def get_compressed(self) -> NDArray[np.uint32]:
        """The words, uint32 (n,); the last one, if any, is not zero."""
        low, high = self._state & _WORD_MASK, self._state >> WORD_BITS
        state = [low, high] if high else [low] if low else []
        return np.array(self._words + state, np.uint32)


def portable_model(cumulative: NDArray[np.uint32]) -> list[int]:
    """Return a row as PortableCoder takes it."""
    model: list[int] = cumulative.tolist()
    return model


def constriction_model(cumulative: NDArray[np.uint32]) -> Any:
    """Return a row of two or more entries as constriction's AnsCoder takes it, a Categorical.

    Categorical takes weights w[0] .. w[n - 1] in floating point, and lets entry k begin at
    floor((w[0] + .. + w[k - 1]) * s) + k, where s = (2**24 - n) / (w[0] + .. + w[n - 1]). With
    w[k] = frequency of k - 1 every sum is an integer below 2**24, so exact whatever the order of
    the additions; s is exactly 1; and entry k begins at cumulative[k].
    """
    import constriction

    weights = np.diff(cumulative).astype(np.float64) - 1
    return constriction.stream.model.Categorical(weights, lazy=False, perfect=False)


@cache
def constriction_coder() -> Any | None:
    """Return constriction's class AnsCoder; None where it is missing or codes differently."""
    try:
        import constriction

        coder = constriction.stream.stack.AnsCoder
        return coder if _codes_as_specified(coder) else None
    except (ImportError, AttributeError, TypeError, ValueError):
        return None


def _codes_as_specified(coder: Any) -> bool:
    """Compare a short stream with the portable coder's: a changed library must not cost files."""
    cumulative = np.array([0, 1, 1001, 2_000_003, TOTAL], np.uint32)
    entries = np.array([0, 1, 2, 3, 2, 1, 0, 1, 1], np.int32)
    found, expected, model = coder(), PortableCoder(), constriction_model(cumulative)
    found.encode_reverse(entries, model)
    expected.encode_reverse(entries, portable_model(cumulative))
    same_words = np.array_equal(found.get_compressed(), expected.get_compressed())
    same_entries = np.array_equal(found.decode(model, len(entries)), entries)
    return same_words and same_entries and bool(found.is_empty())
