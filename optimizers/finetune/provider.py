"""``dspy``'s Provider for students in this process: tuning one's weights gives another LM.

DSPy copies the LM under the new model's name and keeps its engine. The training job hands out that
copy over an engine of its own, which serves the new experts: so a tuned LM is like one of
`student_lm` in everything, and the LM it came from goes on answering as before.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import dspy
from dspy.clients.provider import Provider, TrainingJob
from dspy.clients.utils_finetune import TrainDataFormat, TrainingStatus

from routedk.adapters.engine.engine import AsyncStudentEngine, StudentEngine, engine_lm
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.student import Student, load_student
from routedk.adapters.train import TrainConfig, train_rows
from routedk.adapters.training.examples import written_by
from routedk.errors import SettingError, StudentError
from routedk.optimizers.finetune.rows import Lesson, lesson_rows
from routedk.optimizers.finetune.settings import finetune_settings

# The trainer patches what is shared by the whole process.
_TRAINING = threading.Lock()


class RoutedJob(TrainingJob):  # type: ignore[misc]
    """A training under way; its result is the tuned LM, or the error that stopped it.

    Attributes:
        folder: Where the experts are; None before that is known.
        engine: Serves them; None before they are trained.
    """

    folder: Path | None = None
    engine: StudentEngine | None = None

    def set_result(self, result: Any) -> None:
        """Take DSPy's copy of the LM, or an error; the copy gets the engine of the new experts."""
        if isinstance(result, dspy.LM):
            result = result.copy(
                engine=self.engine,
                async_engine=AsyncStudentEngine(self.engine) if self.engine else None,
                launch_kwargs={"experts": str(self.folder)},
            )
        super().set_result(result)

    def cancel(self) -> bool:
        """A training that runs is not cancelled: what it did is kept when the process is killed."""
        return Future.cancel(self)

    def status(self) -> TrainingStatus:
        """Where it stands."""
        if self.cancelled():
            return TrainingStatus.cancelled
        if not self.done():
            return TrainingStatus.running
        failed = isinstance(self.result(), Exception)
        return TrainingStatus.failed if failed else TrainingStatus.succeeded


class RoutedProvider(Provider):  # type: ignore[misc]
    """Trains experts under the student of one LM.

    Every training starts from the frozen student, of which a copy is loaded: what the LM answers
    does not change. What was trained before is found in the folder, an artifact store, and a killed
    training resumes.

    Args:
        student: The LM's base; its weights are only looked up.
        folder: Of the artifact store that keeps what is trained.
        settings: How to train; by default those of `finetune_settings` without knowledge.
        max_batch: Most requests that the tuned engine computes together.
    """

    def __init__(
        self,
        student: Student,
        folder: str | Path,
        settings: TrainConfig | None = None,
        *,
        max_batch: int = 16,
    ) -> None:
        super().__init__()
        self.finetunable = True
        self.TrainingJob = RoutedJob
        self.settings = settings or finetune_settings(with_knowledge=False)
        self.folder = Path(folder)
        self._student = student
        self._max_batch = max_batch

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of a program share it."""
        return self

    @staticmethod
    def is_provider_model(model: str) -> bool:
        """Whether a model id is one of a student in this process."""
        return model.startswith("local/routedk-")

    @staticmethod
    def launch(lm: Any, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Nothing: an engine in this process serves as long as its LM exists."""

    @staticmethod
    def kill(lm: Any, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Nothing: programs that were compiled before still ask it; ``lm.engine.close()`` ends it.

        DSPy kills the LMs of the last program that it tried, which may be the best one's.
        """

    def finetune(
        self,
        job: RoutedJob,
        model: str,
        train_data: Sequence[Lesson],
        train_data_format: TrainDataFormat | str | None,
        train_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Train experts, or find them trained.

        Args:
            job: Gets folder and engine.
            model: The LM that the lessons are for; its student is the provider's.
            train_data: Lessons, see `routedk.optimizers.finetune.rows`; those that name no expert
                are for the first one.
            train_data_format: Chat.
            train_kwargs: Perhaps ``settings``, a `TrainConfig` instead of the provider's.

        Returns:
            The id of the tuned model, a hash of its weights.

        Raises:
            SettingError: The lessons, their format or the settings cannot be trained with.
            StudentError: The student's weights cannot be found again.
        """
        job.set_running_or_notify_cancel()
        settings = self._settings(train_kwargs or {})
        if train_data_format != TrainDataFormat.CHAT:
            raise SettingError(
                f"train_data_format={train_data_format!r}: only 'chat' can be trained on; use an "
                "adapter of chat messages, as BundleLayout"
            )
        experts, form = settings.expert_names, settings.answer_form
        rows = lesson_rows(self._student.tokenizer, train_data, experts, form)
        with _TRAINING:
            settings = replace(settings, student=self._student.name)
            job.folder = train_rows(rows, settings, store=self.folder)
            routed = RoutedStudent.load(job.folder, student=_fresh(self._student))
        job.engine = StudentEngine(
            routed, form=written_by(experts, form), max_batch=self._max_batch
        )
        return str(engine_lm(job.engine).model)

    def _settings(self, train_kwargs: dict[str, Any]) -> TrainConfig:
        unknown = set(train_kwargs) - {"settings"}
        if unknown:
            raise SettingError(f"train_kwargs {sorted(unknown)}: allowed is settings, TrainConfig")
        settings = train_kwargs.get("settings", self.settings)
        if not isinstance(settings, TrainConfig):
            raise SettingError(f"train_kwargs settings={settings!r}: give TrainConfig")
        return settings


def finetunable(
    lm: Any,
    folder: str | Path,
    settings: TrainConfig | None = None,
    *,
    max_batch: int = 16,
) -> Any:
    """A student's ``dspy.LM`` whose weights DSPy's optimizers can tune.

    For `RoutedFinetune` there is no need of it; for `dspy.BootstrapFinetune` there is.

    Args:
        lm: What `student_lm` or `engine_lm` made.
        folder: As in `RoutedProvider`.
        settings: As in `RoutedProvider`.
        max_batch: As in `RoutedProvider`.

    Returns:
        A copy of the LM, over the same engine.

    Raises:
        SettingError: It is another language model, whose weights are not here.
    """
    engine = getattr(lm, "engine", None)
    if not isinstance(engine, StudentEngine):
        raise SettingError(
            f"the language model {getattr(lm, 'model', lm)!r} has no weights to train here: use a "
            "student in this process, made by routedk.adapters.student_lm or engine_lm"
        )
    student = engine.generator.base
    return lm.copy(provider=RoutedProvider(student, folder, settings, max_batch=max_batch))


def _fresh(student: Student) -> Student:
    """The same student once more, without experts."""
    model = student.model
    dtype = str(model.dtype).removeprefix("torch.")
    found = load_student(
        student.name, device=str(model.device), dtype=dtype, wanted=student.fingerprint
    )
    if found.fingerprint != student.fingerprint:
        raise StudentError(
            f"the student {student.name!r} is not the one it was: fingerprint "
            f"{found.fingerprint} instead of {student.fingerprint}; make its LM again"
        )
    return found
