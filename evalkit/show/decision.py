"""The decision for a reader: its picture and numbers, what is missing, what would change it, its rules, and its history."""

from __future__ import annotations

from evalkit.decision import Decision
from evalkit.decision.history import History
from evalkit.show import changes
from evalkit.show.figure import picture
from evalkit.show.plots import decision as plots
from evalkit.show.plots import history as over_runs
from evalkit.show.tables import Html, answer, joined, note, sentences, table


def layers(decision: Decision) -> Html:
    """Every layer against its limit: the picture of the report's first screen."""
    told = ["Hatched at the left: simulated."] if decision.simulated else []
    caption = " ".join([*told, *([plots.ONE_OF_MANY] if plots.one_of_many(decision) else [])])
    alt = plots.alt(decision)
    return picture(plots.layers, decision, alt=alt, subline=plots.SUBLINE, caption=caption)


def numbers(decision: Decision) -> Html:
    """The same in numbers, a row a track; `decision.to_frame()` has them unrounded."""
    return table(
        plots.numbers(decision),
        caption="Each layer against its limit",
        numeric=("Difference (95% interval)", "Limit"),
    )


def missing(decision: Decision) -> Html:
    """What each layer still lacks, and its price."""
    return table(decision.missing, caption="Evidence still missing", columns=plots.MISSING_COLUMNS)


def would_change(decision: Decision) -> Html:
    """What would turn the verdict."""
    return sentences(decision.would_change, none="Nothing within the rules of this study.")


def warnings(decision: Decision) -> Html:
    """What does not stop the decision but must be read."""
    return sentences(decision.warnings, none="No rule has a warning.")


def rules(decision: Decision) -> Html:
    """The rules it was made by, in words."""
    return sentences(decision.rules)


def history(history: History) -> Html:
    """What changed since the run before, and the primary difference over training runs once there are two."""
    shown, told = list(history.runs), note(changes.told(history))
    if len(over_runs.distinct(shown)) < 2:
        return joined(told, note("The picture begins with the second set of answers."))
    caption = (
        "Each point is one set of answers, a training run or a checkpoint, against its base model. "
        "95% intervals of the paired difference."
    )
    alt = over_runs.alt(shown)
    return joined(told, picture(over_runs.differences, shown, alt=alt, caption=caption))


@answer.register
def _answer(result: Decision) -> Html:
    return answer(result.headline, simulated=result.rests_on_simulated)
