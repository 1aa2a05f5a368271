"""`KnowledgeInjection`: compiles distilled knowledge into a program's prompt."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from statistics import fmean
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter

from routedk.errors import SettingError
from routedk.optimizers.compile_config import CompileConfig, read_instructions
from routedk.optimizers.contest import Contest
from routedk.optimizers.metric import (
    Answering,
    as_examples,
    check_apart,
    intent_similarity,
    matched_f1_metric,
)
from routedk.optimizers.prompt_space import PromptChoice, PromptSpace
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import Retriever
from routedk.programs.knowledge.utilization import is_shown
from routedk.programs.prompting.layout import Message
from routedk.similarity.encoders import default_encoder
from routedk.types import KnowledgeBase, Session

Trial = dict[str, Any]
TokenCount = Callable[[Sequence[Message]], int]
_BYTES_PER_TOKEN = 2.5
_TOKENS_PER_MESSAGE = 4


class KnowledgeInjection(Teleprompter):  # type: ignore[misc]
    """Chooses a program's instruction, rules, patterns, neighbours, thoughts and prompt length.

    Candidates come from `PromptSpace.propose`: each modifies the best one so far, by mean matched
    F1 on the validation set. One evaluation runs one candidate on every validation session, with
    one call to the program each; there is no other cost and no early stopping. The student as given
    is the first candidate and the first incumbent. A candidate replaces the incumbent only if it is
    better session by session beyond chance: the p-value of `routedk.eval.paired.paired_p` is at
    most `CompileConfig.level_each`, so that trying many candidates makes a lucky winner no likelier
    than trying one. If the means are equal, the shorter prompt wins. The final incumbent is kept.

    If items are grouped first (`BundleGenerator.groups_by`), the prompts only ask for intents and
    do not affect the bundles: candidates are then compared by how similar their intents are to the
    gold ones, under the default encoder (`intent_similarity`).

    Args:
        knowledge: Knowledge that a teacher distilled from training sessions. What a candidate
            shows of it replaces the student's own knowledge.
        config: Settings; fewer ``evaluations`` are spent if there is nothing left to try: a small
            space, a tight ``token_budget``. Tokens are counted by a student in this process,
            otherwise estimated (`estimated_tokens`). ``utilization`` ``SFT`` scores and keeps the
            student as given; ``ICL`` and ``SFT+ICL`` choose it only if no candidate shows
            knowledge, and otherwise start the comparison with the first that does; None chooses
            freely. The fields that name a language model are ignored.
        on_trial: Called after each evaluation with its trial, e.g. to show progress.
        answering: Maps a program and sessions to its answers, in order, each with ``bundles`` and
            ``error``; None calls the program.

    Raises:
        DataError: An instruction file cannot be read.
        SettingError: An instruction is empty.
    """

    def __init__(
        self,
        knowledge: KnowledgeBase,
        config: CompileConfig | None = None,
        *,
        on_trial: Callable[[Trial], None] | None = None,
        answering: Answering | None = None,
    ) -> None:
        """Keep the settings and read the instructions."""
        super().__init__()
        self._knowledge = knowledge
        self._config = config or CompileConfig()
        self._instructions = read_instructions(self._config)
        self._on_trial = on_trial or (lambda trial: None)
        self._answering = answering or partial(generate_all, num_threads=self._config.threads)

    def compile(
        self,
        student: BundleGenerator,
        *,
        trainset: Sequence[Any],
        teacher: Any = None,
        valset: Sequence[Any] | None = None,
    ) -> BundleGenerator:
        """Return a copy of the student with the best prompt.

        The LM is that of the student or of the surrounding ``dspy.context(lm=...)``.

        Args:
            student: The program; it is not changed.
            trainset: Examples whose sessions may be shown as neighbours.
            teacher: Not used; part of DSPy's interface.
            valset: Examples to score on; required. None of them may be in the training set or
                have been used to distill the knowledge.

        Returns:
            The compiled program; its ``trials`` record what was tried, the scores, and the
            incumbent that each was compared with.

        Raises:
            SettingError: The sets overlap, no validation session has gold, the retriever's model
                cannot be loaded, or the student's own prompts exceed the token budget.
        """
        config = self._config
        student = student.deepcopy()
        student.utilization = config.utilization
        check_apart(trainset, valset or (), self._knowledge)
        training = tuple(e.session for e in trainset if e.session.bundles is not None)
        validation = self._scored(valset or ())
        own = student.asked().signature.instructions
        naming = student.groups_by() is not None
        space = PromptSpace(
            knowledge=self._knowledge,
            training=training,
            instructions=tuple(text for text in self._instructions if text != own),
            retriever=config.retriever,
            naming=naming,
        )
        if training:
            # If the model cannot be loaded, fail now, not after hours of scoring.
            Retriever(config.retriever, training)
        shows = config.utilization is None or is_shown(config.utilization)
        if config.fixed:
            return space.build(student, space.fixed(config) if shows else None)
        engine = getattr(student.generate.lm or dspy.settings.lm, "engine", None)
        count: TokenCount = getattr(engine, "prompt_tokens", estimated_tokens)
        budget = config.token_budget

        def longest(choice: PromptChoice | None) -> int:
            program = space.build(student, choice)
            return max(map(count, _prompts(program, validation)))

        if budget is not None and (plain := longest(None)) > budget:
            raise SettingError(
                f"token_budget={budget}: the student as it was given has prompts of {plain} "
                "tokens already (raise the budget, or give it a shorter instruction)"
            )
        contest = Contest(level=config.level_each, seed=config.seed)
        choices: list[PromptChoice | None] = []
        trials: list[Trial] = []
        proposed = space.propose(lambda: choices[contest.leader] or PromptChoice())
        if budget is not None:
            proposed = (choice for choice in proposed if longest(choice) <= budget)
        evaluations = config.evaluations if shows else 1
        for number, choice in enumerate(islice(chain([None], proposed), evaluations)):
            choices.append(choice)
            scored = self._score(space.build(student, choice), validation, count, contest, naming)
            trials.append({"number": number, "choice": choice and asdict(choice), **scored})
            self._on_trial(trials[-1])
        informed = [n for n, choice in enumerate(choices) if choice and choice.informed]
        kept = contest.kept(informed if config.utilization is not None else ())
        compiled = space.build(student, choices[kept])
        compiled.trials = [{**trial, "chosen": n == kept} for n, trial in enumerate(trials)]
        return compiled

    def _scored(self, valset: Sequence[Any]) -> list[Session]:
        """The validation sessions to score on: those with gold, or a seeded sample of them."""
        validation = [e.session for e in valset if e.session.bundles is not None]
        if not validation:
            raise SettingError("no validation session has gold: there is nothing to score on")
        most = self._config.max_validation
        if most is None or len(validation) <= most:
            return validation
        return random.Random(self._config.seed).sample(validation, most)

    def _score(
        self,
        program: BundleGenerator,
        validation: Sequence[Session],
        count: TokenCount,
        contest: Contest,
        naming: bool,
    ) -> Trial:
        """Evaluate one candidate."""
        answers = self._answering(program, validation)
        scores = list(map(matched_f1_metric, as_examples(validation), answers))
        trial: Trial = {"matched_f1": fmean(scores)}
        if naming:
            alike = intent_similarity(default_encoder())
            bundles = [list(answer.bundles) for answer in answers]
            scores = list(map(alike, validation, bundles))
            trial["intent_similarity"] = fmean(scores)
        prompts = _prompts(program, validation)
        characters = sum(len(m["content"]) for prompt in prompts for m in prompt) / len(prompts)
        return {
            **trial,
            **contest.enter(scores, characters),
            "prompt_characters": characters,
            "prompt_tokens": max(map(count, prompts)),
            "unparsable": sum(bool(answer.error) for answer in answers),
            "sessions": len(validation),
        }


def _prompts(program: BundleGenerator, sessions: Sequence[Session]) -> list[list[Message]]:
    """The messages of all prompts for some sessions; if there are none, of one for the first."""
    prompts = [one for session in sessions for one in program.prompts(session)]
    return [list(one.messages) for one in prompts or [program.prompt(sessions[0])]]


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Estimate tokens on the high side: one for every 2.5 bytes of UTF-8, and 4 per message.

    Prompts of this package have 2.5 to 3.9 bytes per token of the embedded student, chat markers
    included; tokenizers with larger vocabularies need fewer tokens.

    Args:
        messages: The chat messages of one request.
    """
    sizes = (len(message["content"].encode()) for message in messages)
    return sum(math.ceil(size / _BYTES_PER_TOKEN) + _TOKENS_PER_MESSAGE for size in sizes)
