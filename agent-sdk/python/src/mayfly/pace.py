"""When to renew and when to retry: the numbers that every package of Mayfly shares. All times are in seconds.

`chance` is in 0 to 1 and spreads what many agents do at the same moment.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

#: Shortest pause before any retry.
FIRST = 0.2
#: Longest pause before the stream of bundles is opened again.
LONGEST = 30.0
#: How often the clock is read while waiting, because clocks can be set and machines sleep.
LOOK = 20.0
#: A stream that was useful and stayed open for this long did not fail.
STOOD = 1.0
#: Time limit for one call.
PATIENCE = 10.0
#: Attempts of a first call while nobody answers.
TRIES = 4


def chance() -> float:
    """A number in 0 to 1. No secret depends on it."""
    return random.random()


def renewal(life: float, chance: float) -> float:
    """How long after its issuance a certificate of this life is renewed: three to seven tenths of the life."""
    return life * (0.3 + 0.4 * chance)


def again(left: float, chance: float) -> float:
    """How long after a failure a renewal is retried, when the certificate is valid for `left`.

    Whoever has little time left comes first, and at least a fifth of the time remains for one more attempt.
    """
    return max(left * (0.2 + 0.6 * math.pow(chance, 0.7)), FIRST * (0.5 + 0.5 * chance))


def back(left: float, refresh: float, chance: float) -> float:
    """How long after a repeated failure the stream of bundles is opened again."""
    return max(min(left / 2, refresh, LONGEST), FIRST) * (0.5 + 0.5 * chance)


def backoff(first: float, longest: float, failures: int, chance: float) -> float:
    """A pause that doubles with each failure in a row, up to the longest; between half of it and all of it."""
    return min(first * 2.0 ** min(failures, 16), longest) * (0.5 + 0.5 * chance)


def calls(failures: int, chance: Callable[[], float] = chance) -> float:
    """The pause between attempts of a call that has no deadline of its own."""
    return backoff(FIRST, 1.25, failures, chance())


def streams(failures: int, chance: Callable[[], float] = chance) -> float:
    """The pause before a stream is opened again."""
    return backoff(0.05, 5.0, failures, chance())
