"""`TrialRunner`: runs a trial by calling the verbs with its settings, on one store."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from optuna import Study

from routedk.adapters.answering import answer, stream_answers
from routedk.adapters.lm import resolve_lm
from routedk.adapters.train import TrainConfig, train
from routedk.artifacts import ArtifactStore, content_hash
from routedk.data.records import session_to_record
from routedk.errors import SettingError
from routedk.optimizers.compile import compile_program
from routedk.optimizers.compile_config import CompileConfig
from routedk.optimizers.search.config import SearchConfig
from routedk.optimizers.search.space import FormatName, TrialSettings
from routedk.optimizers.search.study import IDENTITY, check_identity
from routedk.programs.aicl.program import AICL
from routedk.programs.batch import call_each
from routedk.programs.distill import DistillConfig, distill, file_hash
from routedk.programs.knowledge.utilization import is_shown, is_trained
from routedk.programs.teachers.config import Format
from routedk.types import Answer, KnowledgeBase, Session

# How many patterns a prompt shows, if any: the nearest ones.
_PATTERNS = 3
# The fields of the search's config that a runner uses.
_SAME = ("student", "dtype", "seed", "max_validation")


class TrialRunner:
    """Distills, trains, compiles and answers, reusing what the store already holds.

    Args:
        train: Training sessions.
        validation: Validation sessions. Groupings are chosen and trials are scored on those with
            gold, or on the config's seeded sample of them.
        config: The config of the search.
        store: Keeps what the verbs make: an artifact store or its folder; None for the one in the
            cache folder.
        max_sessions: Size of the seeded sample of training sessions that experts are trained on;
            None for all. Knowledge is distilled from all.

    Raises:
        SettingError: There is no session to learn from or none to score, or one is in both sets.
    """

    def __init__(
        self,
        train: Sequence[Session],
        validation: Sequence[Session],
        config: SearchConfig,
        store: ArtifactStore | str | Path | None,
        max_sessions: int | None = None,
    ) -> None:
        self.train = train
        self._max_sessions = max_sessions
        self.validation = gold_sample(validation, config.max_validation, config.seed)
        self.config = config
        self._store = ArtifactStore.of(store)
        if config.answers:  # Bad answers would fail every trial: raise now.
            self._distilled(TrialSettings(formats=get_args(FormatName)))
        if not self.validation or not any(session.gold for session in train):
            part = "train" if self.validation else "validation"
            raise SettingError(f"{part}: no session has gold bundles, trials need them")
        if both := {s.id for s in train} & {s.id for s in validation}:
            raise SettingError(
                f"{len(both)} validation sessions are training sessions, e.g. {min(both)!r}: "
                "split again"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """The data and settings that must be the same to resume, report or export the study."""
        answers = [[str(path.resolve()), *file_hash(path)[1:]] for path in self.config.answers]
        return {
            **{name: getattr(self.config, name) for name in _SAME},
            # None, as in studies from before answers could be given.
            "answers": answers or None,
            "train": sessions_record(self.train),
            "validation": sessions_record(self.validation),
        }

    @contextmanager
    def answers(
        self, settings: TrialSettings, sessions: Sequence[Session] | None = None
    ) -> Iterator[Iterable[Answer]]:
        """Build what a trial answers with, then answer sessions with it, in order.

        Args:
            settings: The trial's settings.
            sessions: Sessions to answer, none of them training sessions; None for the validation
                sessions.

        Yields:
            The answers, each as soon as it is available.

        Raises:
            RouteDKError: The trial cannot be run.
        """
        sessions = self.validation if sessions is None else sessions
        with self.built(settings) as (program, _, lm):
            if isinstance(program, AICL):
                program.set_lm(lm)
                answers = call_each(partial(answer, program=program), sessions)
            else:
                answers = stream_answers(sessions, program=program, lm=lm, store=self._store)
            with closing(answers):
                yield answers

    @contextmanager
    def built(self, settings: TrialSettings) -> Iterator[tuple[Any, Path | None, Any]]:
        """The trial's program, its folder of experts and its student, closed after the block.

        Yields:
            The compiled program, or `AICL`; the folder of experts, None for the base model; the
            student with these experts.
        """
        if settings.utilization == "AICL":
            lm = self._student()
            with closing(lm.engine):
                yield AICL([session for session in self.train if session.gold]), None, lm
            return
        knowledge = self._distilled(settings) if settings.formats else KnowledgeBase()
        experts = None
        if is_trained(settings.utilization):
            wanted = self.train_config(settings)
            experts = train(self.train, knowledge, wanted, store=self._store)
        config: Any = {
            "utilization": settings.utilization,
            "neighbours": settings.neighbours,
            "rules": settings.rules,
            "patterns": _PATTERNS if is_shown(settings.utilization) else 0,
            "experts": experts,
            "seed": self.config.seed,
        }
        lm = self._student(experts)
        with closing(lm.engine):
            program = compile_program(
                self._shown(settings, knowledge),
                self.validation,
                knowledge,
                CompileConfig(**config),
                lm=lm,
                store=self._store,
            )
            yield program, experts, lm

    def _shown(self, settings: TrialSettings, knowledge: KnowledgeBase) -> Sequence[Session]:
        """The sessions that neighbours are taken from: if thoughts are shown, those with one."""
        if not (is_shown(settings.utilization) and "thought" in settings.formats):
            return self.train
        thought_of = {thought.session_id for thought in knowledge.thoughts}
        return [session for session in self.train if session.id in thought_of] or self.train

    def train_config(self, settings: TrialSettings) -> TrainConfig:
        """The training config of a trial.

        Raises:
            SettingError: Its settings are not allowed.
        """
        config: Any = {
            "labels": "gold",
            "max_sessions": self._max_sessions,
            "answer_form": "item-intents",
            "expert_names": settings.experts,
            "fusion": settings.fusion,
            "r": settings.r,
            "learning_rate": settings.learning_rate,
            "epochs": settings.epochs,
            "student": self.config.student,
            "seed": self.config.seed,
        }
        return TrainConfig(**{name: value for name, value in config.items() if value is not None})

    def _distilled(self, settings: TrialSettings) -> KnowledgeBase:
        # All formats at once, so that trials can share them.
        config = DistillConfig(
            answers=self.config.answers,
            ratio=settings.ratio,
            strategy=settings.strategy,
            seed=self.config.seed,
        )
        made = distill(
            self.train,
            config,
            student=self._student,
            store=self._store,
            held_out=self.validation if self.config.answers else (),
        )
        unused = [name for name in get_args(Format) if name not in settings.formats]
        return replace(made, **{f"{name}s": () for name in unused})

    def _student(self, experts: Path | None = None) -> Any:
        return resolve_lm(None, experts, self.config.student, self.config.dtype)


def runner_of(
    study: Study,
    train: Sequence[Session],
    validation: Sequence[Session],
    store: ArtifactStore | str | Path | None,
) -> TrialRunner:
    """The runner for an existing study.

    Args:
        study: As returned by `read_study`.
        train: Training sessions, as they were given to `search`.
        validation: Validation sessions, likewise.
        store: The artifact store or its folder.

    Raises:
        SettingError: The study was made with other sessions.
    """
    made_with = study.user_attrs[IDENTITY]
    answers = tuple(Path(path) for path, _ in made_with.get("answers") or ())
    config = SearchConfig(answers=answers, **{name: made_with[name] for name in _SAME})
    runner = TrialRunner(train, validation, config, store)
    check_identity(study, runner.identity)
    return runner


def gold_sample(sessions: Sequence[Session], size: int | None, seed: int) -> list[Session]:
    """The sessions with gold, or a seeded sample of ``size`` of them, in their order."""
    gold = [session for session in sessions if session.gold]
    if size is None or size >= len(gold):
        return gold
    places = random.Random(seed).sample(range(len(gold)), size)
    return [gold[place] for place in sorted(places)]


def sessions_record(sessions: Sequence[Session]) -> str:
    """The number of sessions and a hash of their content, in their order."""
    digest = content_hash([session_to_record(session) for session in sessions])
    return f"{len(sessions)} sessions, {digest[:12]}"
