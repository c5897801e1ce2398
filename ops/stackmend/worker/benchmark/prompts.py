"""Prompts that no server has met before: unlike one another from their first word on.

A server that keeps prompts answers a known beginning at once, so that the first words are the salt;
and as some find known parts in the middle as well, no part comes twice in the same order. All words
are taken equally often, so that prompts of as many words have as many tokens.
"""

from __future__ import annotations

import random
import threading

#: Short English words: a token or two each, whatever the tokenizer.
WORDS = (
    "river stone window garden paper silver market bridge winter summer letter number "
    "forest island copper yellow engine basket candle mirror ladder hammer pocket button "
    "valley harbor castle temple desert meadow thunder shadow carpet ribbon saddle anchor "
    "kettle needle pepper ginger orange almond cherry walnut rabbit falcon salmon turtle "
    "doctor farmer sailor singer teacher painter captain soldier planet record travel "
    "answer season village mountain country"
).split()


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


def count_words(tokens: int, base: float, per_word: float) -> int:
    """How many words make a prompt of about so many tokens.

    :param tokens: that the prompt is to have.
    :param base: tokens that every prompt has besides its words.
    :param per_word: tokens of a word, on average.
    """
    return max(1, round((tokens - base) / per_word))
