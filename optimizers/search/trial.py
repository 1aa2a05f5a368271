"""`TrialRunner`: carries out a trial by calling the verbs with its settings, over one store."""

import random
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from optuna import Study

from routedk.adapters.generate import stream_answers
from routedk.adapters.lm import resolve_lm
from routedk.adapters.train import TrainConfig, train
from routedk.artifacts import ArtifactStore, content_hash
from routedk.data.records import session_to_record
from routedk.errors import SettingError
from routedk.optimizers.compile import compile_program
from routedk.optimizers.compile_config import CompileConfig
from routedk.optimizers.search.config import SearchConfig
from routedk.optimizers.search.space import TrialSettings
from routedk.optimizers.search.study import IDENTITY, check_identity
from routedk.programs.distill import DistillConfig, distill
from routedk.programs.knowledge.utilization import is_shown, is_trained
from routedk.programs.teachers.config import Format
from routedk.types import Answer, KnowledgeBase, Session

# Patterns in a prompt that shows any, the nearest ones.
_PATTERNS = 3
# What a runner reads of the config of its search.
_SAME = ("student", "dtype", "seed", "max_validation")


class TrialRunner:
    """Distills, trains, compiles and answers; what the store holds already is not made again.

    Args:
        train: Training sessions.
        validation: Validation sessions. Groupings are chosen and trials are scored on those with
            gold, or on the config's seeded sample of them.
        config: Of the search.
        store: Keeps what the verbs make: an artifact store or its folder; None for the one in the
            cache folder.

    Raises:
        SettingError: There is no session to learn from or none to score, or one is in both sets.
    """

    def __init__(
        self,
        train: Sequence[Session],
        validation: Sequence[Session],
        config: SearchConfig,
        store: ArtifactStore | str | Path | None,
    ) -> None:
        self.train = train
        self.validation = _scored(validation, config)
        self.config = config
        self._store = ArtifactStore.of(store)
        if not self.validation or not any(session.gold for session in train):
            part = "train" if self.validation else "validation"
            raise SettingError(f"{part}: no session has gold bundles, a search needs them")
        if both := {s.id for s in train} & {s.id for s in validation}:
            raise SettingError(
                f"{len(both)} validation sessions are training sessions, e.g. {min(both)!r}: "
                "split again"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """The data and settings that must be the same to resume, report or export the study."""
        return {
            **{name: getattr(self.config, name) for name in _SAME},
            "train": _record(self.train),
            "validation": _record(self.validation),
        }

    def answers(
        self, settings: TrialSettings, sessions: Sequence[Session] | None = None
    ) -> Generator[Answer]:
        """Answer sessions as a trial does, in their order.

        Args:
            settings: The trial's.
            sessions: What to answer, none of them from the training sessions; None for the
                validation sessions.

        Raises:
            RouteDKError: The trial cannot be carried out.
        """
        sessions = self.validation if sessions is None else sessions
        with self.built(settings) as (program, _, lm):
            yield from stream_answers(sessions, program=program, lm=lm, store=self._store)

    @contextmanager
    def built(self, settings: TrialSettings) -> Iterator[tuple[Any, Path | None, Any]]:
        """The trial's program, its folder of experts and its student, closed after the block.

        Yields:
            The compiled program; the experts, None for the base model; the student with them.
        """
        knowledge = self._distilled(settings) if settings.formats else KnowledgeBase()
        experts = self._trained(settings, knowledge) if is_trained(settings.utilization) else None
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
        """The sessions that neighbours are taken from: where thoughts are shown, those with one."""
        if not (is_shown(settings.utilization) and "thought" in settings.formats):
            return self.train
        thought_of = {thought.session_id for thought in knowledge.thoughts}
        return [session for session in self.train if session.id in thought_of] or self.train

    def _trained(self, settings: TrialSettings, knowledge: KnowledgeBase) -> Path:
        config: Any = {
            "answer_form": "item-intents",
            "expert_names": settings.experts,
            "fusion": settings.fusion,
            "r": settings.r,
            "learning_rate": settings.learning_rate,
            "epochs": settings.epochs,
            "student": self.config.student,
            "seed": self.config.seed,
        }
        return train(self.train, knowledge, TrainConfig(**config), store=self._store)

    def _distilled(self, settings: TrialSettings) -> KnowledgeBase:
        strategy: Any = settings.strategy
        # All formats at once, for trials to share.
        config = DistillConfig(ratio=settings.ratio, strategy=strategy, seed=self.config.seed)
        made = distill(self.train, config, student=self._student, store=self._store)
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
    """The runner of a study that was run.

    Args:
        study: As `read_study` gives it.
        train: Training sessions, as they were given to `search`.
        validation: Validation sessions, likewise.
        store: The artifact store or its folder.

    Raises:
        SettingError: The study was made with other sessions.
    """
    made_with = study.user_attrs[IDENTITY]
    config = SearchConfig(**{name: made_with[name] for name in _SAME})
    runner = TrialRunner(train, validation, config, store)
    check_identity(study, runner.identity)
    return runner


def _scored(validation: Sequence[Session], config: SearchConfig) -> list[Session]:
    scored = [session for session in validation if session.gold]
    if config.max_validation is None or config.max_validation >= len(scored):
        return scored
    places = random.Random(config.seed).sample(range(len(scored)), config.max_validation)
    return [scored[place] for place in sorted(places)]


def _record(sessions: Sequence[Session]) -> str:
    """The number of sessions and a hash of all that they hold, in their order."""
    digest = content_hash([session_to_record(session) for session in sessions])
    return f"{len(sessions)} sessions, {digest[:12]}"
