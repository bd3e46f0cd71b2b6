"""What the accuracies mean: a word, the reason, and the uncertainty."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

Z95 = 1.959964  # of a normal distribution, two-sided 95 %
FEWEST_TESTED = 50
LEAST_LEARNT = 20.0  # percentage points above chance that the best model must reach on clean clips
WORKS, IN_PART = 0.25, 0.6  # at most this share of what can be learnt may be left
WORDS = ("works", "works in part", "does not work")
AGAINST_ATTACKS = ("", "but only in part against attacks", "but not against attacks")


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """`word` is one of `WORDS` or "cannot tell"; the sentences give the reason and the uncertainty.

    If the better attack, judged by the same thresholds, earns a worse word than ordinary training, `word` continues
    with one of `AGAINST_ATTACKS`: "works, but not against attacks".
    """

    word: str
    sentence: str
    uncertainty: str


def interval(accuracy: float, n: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy in % on n test clips (Wilson 1927), one digit."""
    if n == 0:
        return 0.0, 100.0
    share = accuracy / 100.0
    middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    return round(100 * max(0.0, middle - half), 1), round(100 * min(1.0, middle + half), 1)


def judge(
    clean: float, protected: float, chance: float, n_tested: int, seeds: int, attacked: Sequence[float] = ()
) -> Conclusion:
    """The verdict on the best model's accuracies, in %, on clean test clips.

    Parameters
    ----------
    clean, protected : float
        Of the model that learns most from clean clips, and of the model and training, plain or default, that learn most
        from protected clips; each after its best epoch, since nobody has to train on past it.
    chance : float
        Accuracy of always naming the commonest class.
    n_tested : int
        Number of test clips.
    seeds : int
        Trainings of each model; the accuracies are their means.
    attacked : sequence of float
        Accuracy under each attack that was tried.
    """
    low, high = interval(protected, n_tested)
    clean_low, _ = interval(clean, n_tested)
    trainings = "one training of each model" if seeds == 1 else f"{seeds} trainings of each model"
    uncertainty = (
        f"{n_tested} test clips leave the protected accuracy at {low:.0f} to {high:.0f} % (95 %), for {trainings}; "
        f"another training differs by some points, and a model that was not tried may learn more."
    )
    if n_tested < FEWEST_TESTED or clean_low - chance < LEAST_LEARNT:
        return Conclusion(
            "cannot tell",
            f"The best model reaches {clean:.0f} % from clean clips, and always naming the commonest class "
            f"{chance:.0f} %: there is too little to lose, or there are too few test clips ({n_tested}).",
            uncertainty,
        )
    left = max(0.0, (protected - chance) / (clean - chance))
    sentence = (
        f"The best model reaches {clean:.0f} % on clean recordings if it learns from clean clips, and "
        f"{protected:.0f} % if it learns from protected ones; always naming the commonest class gives {chance:.0f} %. "
        f"Of what can be learnt, {100 * left:.0f} % is left."
    )
    grade = _grade(clean, protected, chance, n_tested)
    word = WORDS[grade]
    if attacked:
        which = "attack" if len(attacked) == 1 else "better attack" if len(attacked) == 2 else "best attack"
        sentence += f" The {which} that was tried reaches {max(attacked):.0f} %."
        grade_attacked = _grade(clean, max(attacked), chance, n_tested)
        if grade_attacked > grade:
            word += f", {AGAINST_ATTACKS[grade_attacked]}"
    return Conclusion(word, sentence, uncertainty)


def _grade(clean: float, reached: float, chance: float, n_tested: int) -> int:
    """The index in `WORDS` for an accuracy reached with protected clips."""
    _, high = interval(reached, n_tested)
    if (high - chance) / (clean - chance) <= WORKS:
        return 0
    return 1 if (reached - chance) / (clean - chance) <= IN_PART else 2
