"""Prompts that no server has met before: unlike one another from their first word on.

A server that keeps prompts answers a known beginning at once, so that the first words are the salt;
and as some find known parts in the middle as well, no part comes twice in the same order. All words
are taken equally often, so that prompts of as many words have as many tokens.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

#: Short English words: a token or two each, whatever the tokenizer.
WORDS = (
    "river stone window garden paper silver market bridge winter summer letter number "
    "forest island copper yellow engine basket candle mirror ladder hammer pocket button "
    "valley harbor castle temple desert meadow thunder shadow carpet ribbon saddle anchor "
    "kettle needle pepper ginger orange almond cherry walnut rabbit falcon salmon turtle "
    "doctor farmer sailor singer teacher painter captain soldier planet record travel "
    "answer season village mountain country"
).split()

#: Words of the two prompts from which the tokens of a word are computed: each word of the list
#: once, and twice, since some words have more tokens than others.
FEW_WORDS, MORE_WORDS = len(WORDS), 2 * len(WORDS)

#: Tokens of a prompt's word, where the server does not count prompts.
USUAL_TOKENS = 1.3


class Prompts:
    """A source of prompts, for any number of threads.

    :param seed: what makes them differ from those of every other source; a number that nobody else
        took, such as one of ``secrets.randbits(64)``.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  # no secret: it must only differ
        self._deck: list[str] = []
        self._lock = threading.Lock()

    def make(self, words: int) -> str:
        """The next prompt.

        :param words: that it has.
        """
        # The rest of a deck would give each prompt a share of its own of the long words.
        with self._lock:
            self._deck = []
            return " ".join(self._draw() for _ in range(words))

    def make_seed(self) -> int:
        """The next seed of a sampling."""
        with self._lock:
            return self._random.randrange(1, 2**31)

    def _draw(self) -> str:
        if not self._deck:
            self._deck = self._random.sample(WORDS, len(WORDS))
        return self._deck.pop()


@dataclass(frozen=True)
class Scale:
    """How many tokens a server counts of a prompt of so many words.

    :param base: tokens that every prompt has besides its words.
    :param per_word: tokens of a word, on average.
    """

    base: float
    per_word: float

    @property
    def is_plausible(self) -> bool:
        """Whether more words have more tokens, as where all of a prompt is counted."""
        return self.per_word >= 1

    def find_words(self, tokens: int) -> int:
        """How many words make a prompt of about so many tokens."""
        return max(1, round((tokens - self.base) / self.per_word))

    def count_tokens(self, words: int) -> int:
        """How many tokens a prompt of so many words has."""
        return round(self.base + self.per_word * words)


def find_scale(few: int, more: int) -> Scale:
    """The scale of a server, by what it counts of two prompts.

    :param few: tokens of a prompt of :data:`FEW_WORDS`.
    :param more: those of one of :data:`MORE_WORDS`.

    Example:
        >>> find_scale(68, 134).count_tokens(10)
        12
    """
    per_word = (more - few) / (MORE_WORDS - FEW_WORDS)
    return Scale(few - per_word * FEW_WORDS, per_word)


def find_usual_words(tokens: int) -> int:
    """How many words make a prompt of about so many tokens, where a server counts none."""
    return max(1, round(tokens / USUAL_TOKENS))
