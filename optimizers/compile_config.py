"""All settings of `compile_program`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from routedk.adapters.student import Dtype
from routedk.checks import check_choices, check_least
from routedk.errors import SettingError
from routedk.files import read_text


@dataclass(frozen=True, kw_only=True)
class CompileConfig:
    """Settings of `compile_program`.

    Args:
        evaluations: Candidates to score, including the plain program.
        level: Highest probability, above 0 and below 1, that chance alone replaces the plain
            program; shared among the candidates.
        instruction: A text file with an instruction to try in addition to the default one.
        token_budget: Most tokens that a prompt may have on the validation sessions; longer
            candidates are skipped.
        max_validation: Most validation sessions to score a candidate on; the grouping uses all.
        retriever: How similar sessions are found: tfidf, minilm, or the name or folder of a
            sentence-transformers model.
        utilization: Where knowledge is used: ICL (in the prompt), SFT (in the experts' training)
            or SFT+ICL. Unset: as the experts were trained, else as validation decides.
        neighbours: Similar sessions in each prompt. If neighbours, rules or patterns is set, the
            prompt shows exactly these numbers and no candidates are scored.
        rules: Rules in each prompt, the nearest to its session; see neighbours.
        patterns: Patterns in each prompt, the nearest to its session; see neighbours.
        threads: Concurrent calls to the language model.
        seed: Seed of all random choices.
        lm: A model by its LiteLLM name, e.g. openai/gpt-4o-mini or ollama_chat/llama3.1; its key
            is read from the environment. Unset: the student.
        experts: Folder of the student's routed experts, as written by train.
        student: Folder or hub name of a causal LM. Unset or default: the student that the experts
            were trained on, or without experts the embedded student, zero-shot.
        dtype: Student dtype: float32, bfloat16 or float16. Unset: float32 on a CPU, else bfloat16.

    Raises:
        SettingError: A value is not allowed.
    """

    evaluations: int = 6
    level: float = 0.05
    instruction: tuple[Path, ...] = ()
    token_budget: int | None = None
    max_validation: int | None = 32
    retriever: str = "tfidf"
    utilization: Literal["ICL", "SFT", "SFT+ICL"] | None = None
    neighbours: int | None = None
    rules: int | None = None
    patterns: int | None = None
    threads: int = 16
    seed: int = 0
    lm: str | None = None
    experts: Path | None = None
    student: str | None = None
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        from routedk.programs.knowledge.compiled import check_retriever
        from routedk.programs.knowledge.utilization import is_shown, is_trained

        check_least(self, evaluations=1, token_budget=1, max_validation=1, threads=1)
        check_least(self, neighbours=0, rules=0, patterns=0, seed=0)
        check_choices(self)
        if not 0 < self.level < 1:
            raise SettingError(f"level={self.level}: it must be above 0 and below 1")
        check_retriever(self.retriever)
        for name in ("instruction", "token_budget"):
            if self.fixed and getattr(self, name):
                raise SettingError(f"{name}: not with neighbours, rules or patterns, leave one out")
        if self.utilization is None:
            return
        if not is_trained(self.utilization) and self.experts is not None:
            raise SettingError(
                f"utilization {self.utilization!r} trains no experts: leave experts out, name "
                "student or lm"
            )
        if is_shown(self.utilization) and not self.fixed and self.evaluations < 2:
            raise SettingError(
                f"evaluations={self.evaluations}: with utilization {self.utilization!r} at least "
                "2, the student as it was given is only compared with"
            )

    @property
    def level_each(self) -> float:
        """The highest p-value at which one candidate replaces another: its share of the level."""
        return self.level / max(1, self.evaluations - 1)

    @property
    def fixed(self) -> bool:
        """Whether the settings fix the prompt, instead of validation choosing it."""
        return any(count is not None for count in (self.neighbours, self.rules, self.patterns))


def read_instructions(config: CompileConfig) -> tuple[str, ...]:
    """The texts of the instructions to try.

    Raises:
        DataError: A file cannot be read.
        SettingError: A file is empty.
    """
    texts = [read_text(path).strip() for path in config.instruction]
    for path, text in zip(config.instruction, texts, strict=True):
        if not text:
            raise SettingError(f"instruction {str(path)!r}: the file is empty, leave it out")
    return tuple(dict.fromkeys(texts))
