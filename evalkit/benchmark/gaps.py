"""Which answers a comparison still lacks: calls that failed, and calls that were never made or never came back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evalkit.records import EvalResult, Example
from evalkit.wording import count, listed, plural


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """What is missing of the answers of both models.

    Attributes:
        n_calls: Answers a complete comparison has.
        base: Answers the base model lacks.
        fine_tuned: Answers the fine-tuned model lacks.
        n_failed: How many of them were asked for and failed; the others stand in no journal.
    """

    n_calls: int
    base: int
    fine_tuned: int
    n_failed: int

    @property
    def n(self) -> int:
        """Answers missing in all; 0 when the comparison is complete."""
        return self.base + self.fine_tuned

    def __str__(self) -> str:
        if not self.n:
            return f"The comparison is complete: {plural(self.n_calls, 'answer')}."
        sides = {"the base model": self.base, "the fine-tuned model": self.fine_tuned}
        who = listed([f"{count(n)} of {name}" for name, n in sides.items() if n])
        failed = f"; {plural(self.n_failed, 'call')} of these failed" if self.n_failed else ""
        return (
            f"The comparison is not complete: {count(self.n)} of {plural(self.n_calls, 'answer')} "
            f"{'is' if self.n == 1 else 'are'} missing ({who}{failed})."
        )


def gaps(
    examples: Sequence[Example],
    base: Iterable[EvalResult],
    fine_tuned: Iterable[EvalResult],
    *,
    samples: int = 1,
) -> Gaps:
    """Counts the answers that both models should have given to these examples and have not.

    A refused, truncated or empty answer is an answer; an error is none, as it is asked again.

    Args:
        examples: The test set's rows.
        base: The base model's answers.
        fine_tuned: The fine-tuned model's.
        samples: Answers asked for each row; more when either model has given more to any.
    """
    both = {"base": list(base), "fine_tuned": list(fine_tuned)}
    asked = max([samples, *(1 + one.sample for results in both.values() for one in results)])
    wanted = {(one.example_id, sample) for one in examples for sample in range(asked)}
    lacking = {}
    for role, results in both.items():
        given = {(str(one.example_id), one.sample) for one in results if one.outcome != "error"}
        lacking[role] = len(wanted - given)
    failed = [one for results in both.values() for one in results if one.outcome == "error"]
    return Gaps(n_calls=2 * len(wanted), n_failed=len(failed), **lacking)
