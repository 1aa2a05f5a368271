"""`KnowledgeInjection`: compiles distilled knowledge into a program's prompt."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import chain, islice
from statistics import fmean
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter

from routedk.errors import SettingError
from routedk.optimizers.contest import Contest
from routedk.optimizers.metric import as_examples, check_apart, matched_f1_metric
from routedk.optimizers.prompt_length import TokenCounter, token_counter
from routedk.optimizers.prompt_space import PromptChoice, PromptSpace
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.context import NeighbourStyle
from routedk.programs.knowledge.neighbours import check_retriever, make_retriever
from routedk.programs.knowledge.utilization import utilization_of
from routedk.types import KnowledgeBase, Session

Trial = dict[str, Any]
Answering = Callable[[BundleGenerator, Sequence[Session]], Sequence[Any]]


class KnowledgeInjection(Teleprompter):  # type: ignore[misc]
    """Chooses a program's instruction, rules, patterns, neighbours, thoughts and prompt length.

    A seeded search, see `PromptSpace.propose`: a candidate changes the best one so far by mean
    matched F1 on the validation set. One evaluation is one candidate on every validation session,
    one call to the program each; there is no other cost and no early stop. The student as it was
    given is the first candidate, and the first incumbent. A candidate takes the incumbent's place
    only where it is better session by session beyond chance: the p-value of
    `routedk.eval.paired.paired_p` is at most ``level / (evaluations - 1)``, so that many
    candidates are no better chance than one. Of equal means the shorter prompt wins. The last
    incumbent is kept.

    Args:
        knowledge: What a teacher distilled from training sessions. What a candidate shows of it
            replaces the knowledge that the student was given with.
        evaluations: Evaluations spent, the student's included; at least 1. Fewer are spent only
            where there is nothing else to try: a small space, a tight ``token_budget``, ``SFT``.
        level: Above 0, below 1: how often at most chance alone should replace the student as it
            was given.
        instructions: Instructions to try beside the student's own.
        ks: Numbers of neighbours to try, each at least 1.
        rules_shown: Numbers of rules shown per session, the nearest to it, each at least 1; the
            first is tried first, and before showing all.
        patterns_shown: Number of patterns shown per session, the nearest to it, where the
            knowledge has any; 0 tries none.
        token_budget: Most tokens of a prompt, over the validation sessions scored (a longer
            session can still need more). Candidates over it are not proposed, and cost nothing.
            None sets no bound. Tokens are counted as `routedk.optimizers.prompt_length` says.
        retriever: How neighbours are found, see `CompiledKnowledge`.
        styles: Ways of showing neighbours to try.
        utilization: ``SFT`` scores and keeps the student as it was given; ``ICL`` and ``SFT+ICL``
            choose it only where no candidate shows knowledge, and begin the comparison with the
            first that does; None chooses freely.
        num_threads: Calls to the LM at once.
        max_validation: Most validation sessions scored, a seeded sample; None takes all.
        seed: Seed of all randomness.
        on_trial: Called after each evaluation with its trial, e.g. to show progress.
        answering: From a program and sessions to its answers, in order, each with ``bundles`` and
            ``error``; None asks the program.

    Raises:
        SettingError: A value is out of its range.
    """

    def __init__(
        self,
        knowledge: KnowledgeBase,
        *,
        evaluations: int = 6,
        level: float = 0.05,
        instructions: Sequence[str] = (),
        ks: Sequence[int] = (1, 2),
        rules_shown: Sequence[int] = (3, 1, 6),
        patterns_shown: int = 3,
        token_budget: int | None = None,
        retriever: str = "tfidf",
        styles: Sequence[NeighbourStyle] = ("demos", "blocks"),
        utilization: str | None = None,
        num_threads: int = 16,
        max_validation: int | None = None,
        seed: int = 0,
        on_trial: Callable[[Trial], None] | None = None,
        answering: Answering | None = None,
    ) -> None:
        """Check and keep the settings."""
        super().__init__()
        for name, value, least in (
            ("evaluations", evaluations, 1),
            ("num_threads", num_threads, 1),
            ("max_validation", max_validation, 1),
            ("token_budget", token_budget, 1),
            ("patterns_shown", patterns_shown, 0),
            *(("ks", k, 1) for k in ks),
            *(("rules_shown", shown, 1) for shown in rules_shown),
        ):
            if value is not None and value < least:
                raise SettingError(f"{name}={value}: it must be at least {least}")
        if not 0 < level < 1:
            raise SettingError(f"level={level}: it must be above 0 and below 1")
        if not rules_shown:
            raise SettingError("rules_shown is empty: it needs at least one number")
        if not styles:
            raise SettingError("styles is empty: it needs at least one of demos, blocks")
        if not all(text.strip() for text in instructions):
            raise SettingError("instructions has an empty one: leave it out")
        check_retriever(retriever)
        wanted = utilization_of(utilization)
        self._must_inform = wanted is not None and wanted.prompts
        self._plain_only = wanted is not None and not wanted.prompts
        if self._must_inform and evaluations < 2:
            raise SettingError(
                f"evaluations={evaluations}: with utilization {utilization!r} at least 2, the "
                "student as it was given is only compared with"
            )
        self._knowledge = knowledge
        self._evaluations = 1 if self._plain_only else evaluations
        self._level = level / max(1, evaluations - 1)
        self._instructions = tuple(dict.fromkeys(text.strip() for text in instructions))
        self._ks = tuple(dict.fromkeys(ks))
        self._rules_shown = tuple(dict.fromkeys(rules_shown))
        self._patterns_shown = patterns_shown
        self._token_budget = token_budget
        self._retriever = retriever
        self._styles = tuple(dict.fromkeys(styles))
        self._utilization = utilization
        self._max_validation = max_validation
        self._seed = seed
        self._on_trial = on_trial or (lambda trial: None)
        self._answering = answering or (
            lambda program, sessions: generate_all(program, sessions, num_threads=num_threads)
        )

    def compile(
        self,
        student: BundleGenerator,
        *,
        trainset: Sequence[Any],
        teacher: Any = None,
        valset: Sequence[Any] | None = None,
    ) -> BundleGenerator:
        """Return a copy of the student with the best prompt.

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
            The compiled program; its ``trials`` say what was tried, with scores, and against
            which incumbent each was compared.

        Raises:
            SettingError: The sets overlap, no validation session has gold, the retriever's model
                cannot be loaded, or the student's own prompts are over the token budget.
        """
        rng = random.Random(self._seed)
        training, validation = self._sets(trainset, valset, rng)
        space = self._space(student, training)
        if space.ks:
            # A model that cannot be loaded is an error now, not after hours of scoring.
            make_retriever(self._retriever, training)
        count = token_counter(student.generate.lm or dspy.settings.lm)

        def longest(choice: PromptChoice | None) -> int:
            program = space.build(student, choice)
            return max(count(program.messages(session)) for session in validation)

        budget = self._token_budget
        if budget is not None and (own := longest(None)) > budget:
            raise SettingError(
                f"token_budget={budget}: the student as it was given has prompts of {own} tokens "
                "already (raise the budget, or give it a shorter instruction)"
            )
        contest = Contest(level=self._level, seed=self._seed)
        choices: list[PromptChoice | None] = []
        trials: list[Trial] = []
        found = space.propose(
            lambda: choices[contest.leader] or PromptChoice(),
            rng,
            lambda choice: budget is None or longest(choice) <= budget,
        )
        for number, choice in enumerate(islice(chain([None], found), self._evaluations)):
            choices.append(choice)
            scored = self._score(space.build(student, choice), validation, count, contest)
            record = None if choice is None else choice.record()
            trials.append({"number": number, "choice": record, **scored})
            self._on_trial(trials[-1])
        informed = [n for n, choice in enumerate(choices) if choice and choice.informed]
        kept = contest.kept(informed if self._must_inform else ())
        compiled = space.build(student, choices[kept])
        compiled.utilization = self._utilization
        compiled.trials = [{**trial, "chosen": n == kept} for n, trial in enumerate(trials)]
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
            check_apart(trainset, valset, self._knowledge)
            validation = [e.session for e in valset if e.session.bundles is not None]
        if not validation:
            raise SettingError("no validation session has gold: there is nothing to score on")
        if self._max_validation is not None and len(validation) > self._max_validation:
            validation = rng.sample(validation, self._max_validation)
        return tuple(training), validation

    def _space(self, student: BundleGenerator, training: tuple[Session, ...]) -> PromptSpace:
        """What of the settings there is anything to choose from for."""
        own = student.generate.signature.instructions
        return PromptSpace(
            knowledge=self._knowledge,
            training=training,
            instructions=tuple(text for text in self._instructions if text != own),
            ks=tuple(k for k in self._ks if k <= len(training)),
            rules_shown=self._rules_shown,
            patterns=min(self._patterns_shown, len(self._knowledge.patterns)),
            styles=self._styles,
            retriever=self._retriever,
        )

    def _score(
        self,
        program: BundleGenerator,
        validation: Sequence[Session],
        count: TokenCounter,
        contest: Contest,
    ) -> Trial:
        """Spend one evaluation."""
        answers = self._answering(program, validation)
        scores = list(map(matched_f1_metric, as_examples(validation), answers))
        prompts = [program.messages(session) for session in validation]
        characters = sum(len(m["content"]) for prompt in prompts for m in prompt) / len(prompts)
        return {
            "matched_f1": fmean(scores),
            **asdict(contest.enter(scores, characters)),
            "prompt_characters": characters,
            "prompt_tokens": max(map(count, prompts)),
            "unparsable": sum(bool(answer.error) for answer in answers),
            "sessions": len(validation),
        }
