"""`KnowledgeInjection`: compiles distilled knowledge into a program's prompt."""

import random
from collections.abc import Callable, Sequence
from itertools import chain, islice
from statistics import fmean
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter

from routedk.data.knowledge_file import sources_of
from routedk.errors import SettingError
from routedk.optimizers.candidates import Candidates, longest_prompt
from routedk.optimizers.choices import KnowledgeChoice, propose
from routedk.optimizers.comparison import Comparison, Contest
from routedk.optimizers.metric import as_examples, matched_f1_metric
from routedk.optimizers.prompt_length import TokenCounter, token_counter
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.context import NeighbourStyle
from routedk.programs.knowledge.neighbours import check_retriever, make_retriever
from routedk.programs.knowledge.utilization import utilization_of
from routedk.types import KnowledgeBase, Session

Trial = dict[str, Any]


class KnowledgeInjection(Teleprompter):  # type: ignore[misc]
    """Chooses a program's instruction, rules, patterns, neighbours, thoughts and prompt length.

    A seeded search, see `routedk.optimizers.choices.propose`: a candidate changes the best one so
    far by mean matched F1 on the validation set. One evaluation is one candidate on every
    validation session, one call to the program each; there is no other cost and no early stop.
    The student as it was given is the first candidate, and the first incumbent. A candidate takes
    the incumbent's place only where it is better session by session beyond noise: the p-value of
    `routedk.eval.paired.paired_p` is at most ``level / (evaluations - 1)``, so that many
    candidates are no better chance than one. Of equal means the shorter prompt wins. The last
    incumbent is kept.

    Args:
        knowledge: What a teacher distilled from training sessions. What a candidate shows of it
            stands in place of the knowledge that the student was given with.
        evaluations: Evaluations spent, the student's included; at least 1. Fewer are spent only
            where there is nothing else to try: a small space, a tight ``token_budget``, ``SFT``.
        level: Above 0, below 1: how often at most chance alone should make a program leave the
            student as it was given.
        instructions: Instructions to try beside the student's own.
        ks: Numbers of neighbours to try, each at least 1.
        rules_shown: Numbers of rules shown per session, the nearest to it, each at least 1; the
            first is tried first, and before showing all.
        patterns_shown: Number of patterns shown per session, the nearest to it, where the
            knowledge has any; 0 tries none.
        token_budget: Most tokens of a prompt, taken over the validation sessions scored (a longer
            session can still need more). Candidates over it are not proposed, and cost nothing.
            None sets no bound.
        count_tokens: Counts the tokens of a prompt; by default the student's own tokenizer, or
            for another language model an estimate on the high side,
            see `routedk.optimizers.prompt_length`.
        retriever: How neighbours are found, see `CompiledKnowledge`.
        styles: Ways of showing neighbours to try.
        utilization: ``SFT`` scores and keeps the student as it was given; ``ICL`` and ``SFT+ICL``
            choose it only where no candidate holds knowledge, and begin the comparison with the
            first that does; None chooses freely.
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
        level: float = 0.05,
        instructions: Sequence[str] = (),
        ks: Sequence[int] = (1, 2),
        rules_shown: int | Sequence[int] = (3, 1, 6),
        patterns_shown: int = 3,
        token_budget: int | None = None,
        count_tokens: TokenCounter | None = None,
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
        rules_shown = (rules_shown,) if isinstance(rules_shown, int) else tuple(rules_shown)
        for name, value in (
            ("evaluations", evaluations),
            ("num_threads", num_threads),
            ("max_validation", max_validation),
            ("token_budget", token_budget),
        ):
            if value is not None and value < 1:
                raise SettingError(f"{name}={value}: it must be at least 1")
        if not 0 < level < 1:
            raise SettingError(f"level={level}: it must be above 0 and below 1")
        for name, values in (("ks", ks), ("rules_shown", rules_shown)):
            if any(value < 1 for value in values):
                raise SettingError(f"{name}={list(values)}: each must be at least 1")
        if not rules_shown:
            raise SettingError("rules_shown is empty: it needs at least one number")
        if patterns_shown < 0:
            raise SettingError(f"patterns_shown={patterns_shown}: it must be at least 0")
        if not all(text.strip() for text in instructions):
            raise SettingError("instructions has an empty one: leave it out")
        check_retriever(retriever)
        wanted = utilization_of(utilization)
        if wanted is not None and wanted.prompts and evaluations < 2:
            raise SettingError(
                f"evaluations={evaluations}: with utilization {utilization!r} at least 2, the "
                "student as it was given is only compared with"
            )
        if not styles:
            raise SettingError("styles is empty: it needs at least one of demos, blocks")
        self._knowledge = knowledge
        self._evaluations = evaluations
        self._level = level / max(1, evaluations - 1)
        self._instructions = tuple(dict.fromkeys(text.strip() for text in instructions))
        self._ks = tuple(dict.fromkeys(ks))
        self._rules_shown = tuple(dict.fromkeys(rules_shown))
        self._patterns_shown = patterns_shown
        self._token_budget = token_budget
        self._count_tokens = count_tokens
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
        own = student.generate.signature.instructions
        candidates = Candidates(
            student=student,
            knowledge=self._knowledge,
            training=training,
            instructions=tuple(text for text in self._instructions if text != own),
            retriever=self._retriever,
        )
        space = candidates.space(
            ks=self._ks,
            rules_shown=self._rules_shown,
            patterns_shown=self._patterns_shown,
            styles=self._styles,
        )
        if space.ks:
            # A model that cannot be loaded is an error now, not after hours of scoring.
            make_retriever(self._retriever, training)
        count = self._count_tokens or token_counter(student.generate.lm or dspy.settings.lm)

        def fits(choice: KnowledgeChoice | None) -> bool:
            if self._token_budget is None:
                return True
            longest = longest_prompt(candidates.build(choice), validation, count)
            return longest <= self._token_budget

        if not fits(None):
            raise SettingError(
                f"token_budget={self._token_budget}: the student as it was given has prompts of "
                f"{longest_prompt(student, validation, count)} tokens already (raise the budget, "
                "or give it a shorter instruction)"
            )
        contest = Contest(level=self._level, seed=self._seed)
        choices: list[KnowledgeChoice | None] = []
        trials: list[Trial] = []
        found = propose(space, lambda: choices[contest.leader] or KnowledgeChoice(), rng, fits)
        proposals = chain([None], found)
        evaluations = 1 if self._prompts is False else self._evaluations
        for number, choice in enumerate(islice(proposals, evaluations)):
            choices.append(choice)
            scored = self._score(candidates.build(choice), validation, count, contest)
            trials.append({"number": number, "choice": candidates.record(choice), **scored})
            if self._on_trial:
                self._on_trial(trials[-1])
        able = [n for n, choice in enumerate(choices) if self._prompts and _informed(choice)]
        kept = contest.kept(able)
        compiled = candidates.build(choices[kept])
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

    def _score(
        self,
        program: BundleGenerator,
        validation: Sequence[Session],
        count: TokenCounter,
        contest: Contest,
    ) -> Trial:
        """Spend one evaluation, and say what came of it."""
        answers = generate_all(program, validation, num_threads=self._num_threads)
        scores = list(map(matched_f1_metric, as_examples(validation), answers))
        prompts = [program.messages(session) for session in validation]
        characters = sum(len(m["content"]) for prompt in prompts for m in prompt) / len(prompts)
        return {
            "matched_f1": fmean(scores),
            **_record(contest.enter(scores, characters)),
            "prompt_characters": characters,
            "prompt_tokens": max(map(count, prompts)),
            "unparsable": sum(answer.error is not None for answer in answers),
            "sessions": len(validation),
        }


def _record(compared: Comparison | None) -> Trial:
    if compared is None:
        return dict.fromkeys(("against", "difference", "p", "replaced"))
    return {
        "against": compared.against,
        "difference": compared.difference,
        "p": compared.p,
        "replaced": compared.replaces,
    }


def _informed(choice: KnowledgeChoice | None) -> bool:
    """Whether a candidate's prompt holds distilled knowledge."""
    return choice is not None and bool(choice.rules or choice.patterns or choice.show_thoughts)


def _refuse_overlap(what: str, names: set[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:5])
        raise SettingError(
            f"{len(names)} validation sessions are in {what}, e.g. {shown}: "
            "scores on them would mean nothing (split again, or distil from the training split)"
        )
