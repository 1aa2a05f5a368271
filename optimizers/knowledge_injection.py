"""`KnowledgeInjection`: compiles distilled knowledge into a program's prompt."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from dspy.teleprompt import Teleprompter

from routedk.errors import SettingError
from routedk.optimizers.choices import KnowledgeChoice, KnowledgeSpace, propose
from routedk.optimizers.metric import as_examples, matched_f1_metric
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.knowledge.context import NeighbourStyle
from routedk.programs.knowledge.file import sources_of
from routedk.programs.knowledge.neighbours import check_retriever, make_retriever
from routedk.programs.knowledge.utilization import utilization_of
from routedk.types import KnowledgeBase, Session

Trial = dict[str, Any]


class KnowledgeInjection(Teleprompter):  # type: ignore[misc]
    """Chooses the patterns, rules, neighbours and thoughts that a program shows.

    Every candidate is scored by mean matched F1 on the validation set. The student as it was
    given is always the first candidate, and stays where nothing scores higher. Of candidates
    with equal scores the one with the shorter prompt wins.

    Args:
        knowledge: What a teacher distilled from training sessions.
        evaluations: Number of candidates scored, the student included; at least 1. Each costs
            one pass over the validation set.
        ks: Numbers of neighbours to try, each at least 1.
        rules_shown: Number of rules shown per session, the nearest to it, at least 1; tried
            before showing all.
        patterns_shown: Number of patterns shown per session, the nearest to it, where the
            knowledge has any; 0 tries none.
        retriever: How neighbours are found, see `CompiledKnowledge`.
        styles: Ways of showing neighbours to try.
        utilization: ``SFT`` scores and keeps the student as it was given; ``ICL`` and ``SFT+ICL``
            choose it only where no candidate holds knowledge; None chooses freely.
        num_threads: Calls to the LM under way at once.
        max_validation: Most validation sessions scored, a seeded sample; None takes all.
        seed: Seed of all chance.
        on_trial: Called after each evaluation with its trial, e.g. to show progress.

    Raises:
        SettingError: A value is out of its range.
    """

    def __init__(
        self,
        knowledge: KnowledgeBase,
        *,
        evaluations: int = 6,
        ks: Sequence[int] = (1, 2),
        rules_shown: int = 3,
        patterns_shown: int = 3,
        retriever: str = "tfidf",
        styles: Sequence[NeighbourStyle] = ("demos", "blocks"),
        utilization: str | None = None,
        num_threads: int = 16,
        max_validation: int | None = None,
        seed: int = 0,
        on_trial: Callable[[Trial], None] | None = None,
    ) -> None:
        """Check and keep the settings."""
        super().__init__()
        if evaluations < 1:
            raise SettingError(f"evaluations={evaluations}: it must be at least 1")
        if num_threads < 1:
            raise SettingError(f"num_threads={num_threads}: it must be at least 1")
        if any(k < 1 for k in ks):
            raise SettingError(f"ks={list(ks)}: each must be at least 1")
        if rules_shown < 1:
            raise SettingError(f"rules_shown={rules_shown}: it must be at least 1")
        if patterns_shown < 0:
            raise SettingError(f"patterns_shown={patterns_shown}: it must be at least 0")
        check_retriever(retriever)
        wanted = utilization_of(utilization)
        if wanted is not None and wanted.prompts and evaluations < 2:
            raise SettingError(
                f"evaluations={evaluations}: with utilization {utilization!r} at least 2, the "
                "student as it was given is only compared with"
            )
        if not styles:
            raise SettingError("styles is empty: it needs at least one of demos, blocks")
        if max_validation is not None and max_validation < 1:
            raise SettingError(f"max_validation={max_validation}: it must be at least 1")
        self._knowledge = knowledge
        self._evaluations = evaluations
        self._ks = tuple(dict.fromkeys(ks))
        self._rules_shown = rules_shown
        self._patterns_shown = patterns_shown
        self._retriever = retriever
        self._styles = tuple(dict.fromkeys(styles))
        self._utilization = utilization
        self._prompts = None if wanted is None else wanted.prompts
        self._num_threads = num_threads
        self._max_validation = max_validation
        self._seed = seed
        self._on_trial = on_trial

    def compile(
        self,
        student: BundleGenerator,
        *,
        trainset: Sequence[Any],
        teacher: Any = None,
        valset: Sequence[Any] | None = None,
    ) -> BundleGenerator:
        """Return a copy of the student with the best knowledge in its prompt.

        The LM is that of the student or of the surrounding ``dspy.context(lm=...)``. Without a
        validation set a fifth of the training set is held out; rules distilled from it are then
        scored on sessions that their teacher saw.

        Args:
            student: The program; it is not changed.
            trainset: Examples whose sessions may be shown as neighbours.
            teacher: Not used; DSPy's interface names it.
            valset: Examples to score on. None of them may be in the training set or have been
                used to distil the knowledge.

        Returns:
            The compiled program; its ``trials`` say what was tried, with scores.

        Raises:
            SettingError: The sets overlap, no validation session has gold, or the retriever's
                model cannot be loaded.
        """
        rng = random.Random(self._seed)
        training, validation = self._sets(trainset, valset, rng)
        thoughts = {t.session_id: t.text for t in self._knowledge.thoughts}
        space = KnowledgeSpace(
            rules=len(self._knowledge.rules),
            rules_shown=self._rules_shown,
            ks=tuple(k for k in self._ks if k <= len(training)),
            thoughts=any(session.id in thoughts for session in training),
            styles=self._styles,
            patterns=min(self._patterns_shown, len(self._knowledge.patterns)),
        )
        if space.ks:
            # A model that cannot be loaded is an error now, not after hours of scoring.
            make_retriever(self._retriever, training)
        programs: list[BundleGenerator] = [student.deepcopy()]
        choices: list[KnowledgeChoice | None] = [None]
        trials = [self._score(programs[0], None, 0, validation)]

        def best() -> int:
            return min(range(len(trials)), key=lambda n: _rank(trials[n]))

        def best_choice() -> KnowledgeChoice:
            return choices[best()] or KnowledgeChoice()

        proposals = propose(space, best_choice, rng)
        evaluations = 1 if self._prompts is False else self._evaluations
        while len(trials) < evaluations and (choice := next(proposals, None)):
            program = student.deepcopy()
            program.knowledge = self._compiled(choice, training, thoughts)
            programs.append(program)
            choices.append(choice)
            trials.append(self._score(program, choice, len(trials), validation))
        able = [n for n, choice in enumerate(choices) if self._prompts and _informed(choice)]
        chosen = min(able or range(len(trials)), key=lambda n: _rank(trials[n]))
        compiled: BundleGenerator = programs[chosen]
        compiled.utilization = self._utilization
        compiled.trials = [{**trial, "chosen": n == chosen} for n, trial in enumerate(trials)]
        return compiled

    def _sets(
        self, trainset: Sequence[Any], valset: Sequence[Any] | None, rng: random.Random
    ) -> tuple[tuple[Session, ...], list[Session]]:
        """Training sessions with gold, and the validation sessions to score on."""
        training = [e.session for e in trainset if e.session.bundles is not None]
        if valset is None:
            shuffled = rng.sample(training, len(training))
            held_out = -(-len(shuffled) // 5)
            validation, training = shuffled[:held_out], shuffled[held_out:]
        else:
            validation = [e.session for e in valset]
            names = {session.id for session in validation}
            _refuse_overlap("the training set", names & {e.session.id for e in trainset})
            _refuse_overlap("what the knowledge was made from", names & sources_of(self._knowledge))
        validation = [session for session in validation if session.bundles is not None]
        if not validation:
            raise SettingError("no validation session has gold: there is nothing to score on")
        if self._max_validation is not None and len(validation) > self._max_validation:
            validation = rng.sample(validation, self._max_validation)
        return tuple(training), validation

    def _compiled(
        self, choice: KnowledgeChoice, training: tuple[Session, ...], thoughts: dict[str, str]
    ) -> CompiledKnowledge:
        return CompiledKnowledge(
            rules=tuple(self._knowledge.rules[place].text for place in choice.rules),
            rules_shown=choice.rules_shown,
            patterns=self._knowledge.patterns if choice.patterns else (),
            patterns_shown=choice.patterns or None,
            k=choice.k,
            sessions=training if choice.k else (),
            thoughts=thoughts if choice.show_thoughts else {},
            show_thoughts=choice.show_thoughts,
            style=choice.style,
            retriever=self._retriever,
        )

    def _score(
        self,
        program: BundleGenerator,
        choice: KnowledgeChoice | None,
        number: int,
        validation: Sequence[Session],
    ) -> Trial:
        answers = generate_all(program, validation, num_threads=self._num_threads)
        examples = as_examples(validation)
        scores = map(matched_f1_metric, examples, answers)
        lengths = (len(m["content"]) for s in validation for m in program.messages(s))
        shown = None if choice is None else {**asdict(choice), "rules": list(choice.rules)}
        trial: Trial = {
            "number": number,
            "choice": shown,
            "matched_f1": fmean(scores),
            "prompt_characters": sum(lengths) / len(validation),
            "unparsable": sum(answer.error is not None for answer in answers),
            "sessions": len(validation),
        }
        if self._on_trial:
            self._on_trial(trial)
        return trial


def _informed(choice: KnowledgeChoice | None) -> bool:
    """Whether a candidate's prompt holds distilled knowledge."""
    return choice is not None and bool(choice.rules or choice.patterns or choice.show_thoughts)


def _rank(trial: Trial) -> tuple[float, float, int]:
    return (-round(trial["matched_f1"], 9), trial["prompt_characters"], trial["number"])


def _refuse_overlap(what: str, names: set[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:5])
        raise SettingError(
            f"{len(names)} validation sessions are in {what}, e.g. {shown}: "
            "scores on them would mean nothing (split again, or distil from the training split)"
        )
