"""`GroupingSearch`: chooses on validation how similar intents must be to form a bundle."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from dspy.teleprompt import Teleprompter
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.eval import matched_f1
from routedk.optimizers.metric import Answering, as_examples, matched_f1_metric
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.grouping.similar_intents import SimilarIntents, intent_dendrogram
from routedk.programs.prompting.item_intents import ItemIntents
from routedk.similarity.encoders import TitleEncoder, default_encoder
from routedk.types import Session

# With a weight of 0 for the intents, the student would have no say.
WEIGHTS = (0.25, 0.5, 0.75, 1.0)
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 19))


class GroupingSearch(Teleprompter):  # type: ignore[misc]
    """Chooses whether to group by equal or by similar intents, and how similar they must be.

    The student answers each validation session once, and the groupings are tried on these answers:
    how much intents weigh, and where to cut. With many groupings and few sessions, chance would
    often win: so a threshold is scored together with its two neighbours, and grouping by equal
    intents is kept unless the best alternative is better, session by session, by more than the
    standard error of the difference. If items are grouped before a language model names the bundles
    (`BundleGenerator.groups_by`), there is nothing to choose: the trial records how good they are.

    Args:
        encoder: Embeds intents and titles; None for the default encoder.
        num_threads: Concurrent calls to the LM.
        answering: Maps a program and sessions to its answers, in order, each with ``bundles`` and
            ``item_intents``; None calls the program.
    """

    def __init__(
        self,
        *,
        encoder: TitleEncoder | None = None,
        num_threads: int = 16,
        answering: Answering | None = None,
    ) -> None:
        """Keep the settings."""
        super().__init__()
        self._encoder = encoder
        self._answering = answering or partial(generate_all, num_threads=num_threads)

    def compile(
        self,
        student: BundleGenerator,
        *,
        trainset: Sequence[Any],
        teacher: Any = None,
        valset: Sequence[Any] | None = None,
    ) -> BundleGenerator:
        """Return a copy of the student with the best grouping.

        Args:
            student: The program; it is not changed.
            trainset: Examples to choose on if there is no validation set; otherwise ignored.
            teacher: Not used; part of DSPy's interface.
            valset: Examples to choose on.

        Returns:
            The compiled program; its last trial records what the choice is based on.

        Raises:
            SettingError: No session has gold.
        """
        examples = trainset if valset is None else valset
        sessions = [e.session for e in examples if e.session.bundles is not None]
        if not sessions:
            raise SettingError("no session has gold: there is nothing to choose the grouping on")
        compiled: BundleGenerator = student.deepcopy()
        first = compiled.groups_by() is not None
        if not first:
            compiled.grouping = None
        answers = self._answering(compiled, sessions)
        equal_S = np.array(list(map(matched_f1_metric, as_examples(sessions), answers)))
        best_S = equal_S
        named: list[ItemIntents] = [answer.item_intents for answer in answers]
        if all(named) and not first:
            encoder = self._encoder or default_encoder()
            grouping, scores_S = _best(sessions, named, encoder)
            gain_S = scores_S - equal_S
            # Beyond chance: above its standard error.
            if len(gain_S) > 1 and gain_S.mean() > gain_S.std(ddof=1) / len(gain_S) ** 0.5:
                best_S, compiled.grouping = scores_S, grouping
        trial = {
            "equal_intents_f1": None if first else float(equal_S.mean()),
            "grouping_f1": float(best_S.mean()),
            "sessions": len(sessions),
        }
        compiled.trials = [*compiled.trials, trial]
        return compiled


def _best(
    sessions: Sequence[Session], named: Sequence[ItemIntents], encoder: TitleEncoder
) -> tuple[SimilarIntents, NDArray[np.float64]]:
    """The grouping with the best score, averaged with its neighbours, and its score per session.

    Args:
        sessions: Validation sessions.
        named: The intents named for the items of each session.
        encoder: Embeds intents and titles.
    """
    asked = [*zip(sessions, named, strict=True)]
    found = []
    for weight in WEIGHTS:
        trees = [intent_dendrogram(*one, encoder, weight) for one in asked]
        scores_HS = np.array(
            [
                [matched_f1(s.gold, tree.cut(h)) for s, tree in zip(sessions, trees, strict=True)]
                for h in THRESHOLDS
            ]
        )
        around_HS = np.pad(scores_HS, ((1, 1), (0, 0)), mode="edge")
        smooth_H = (around_HS[:-2] + around_HS[1:-1] + around_HS[2:]).mean(axis=1) / 3
        place = int(smooth_H.argmax())
        grouping = SimilarIntents(weight=weight, threshold=THRESHOLDS[place])
        found.append((float(smooth_H[place]), grouping, scores_HS[place]))
    _, grouping, scores_S = max(found, key=lambda one: one[0])
    return grouping, scores_S
