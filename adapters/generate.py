"""`generate`: sessions to bundles, in this process or on Ray."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from routedk.adapters.answering import GenerateConfig, stream_answers
from routedk.adapters.ray_engine import RayConfig, answers_on_ray
from routedk.artifacts import ArtifactStore
from routedk.errors import SettingError
from routedk.rules import BundleRules
from routedk.types import Answer, Session

if TYPE_CHECKING:
    import dspy

    from routedk.programs.generator import BundleGenerator

Engine = Literal["local", "ray"]


def generate(
    sessions: Iterable[Session | Answer],
    config: GenerateConfig | None = None,
    *,
    program: "BundleGenerator | None" = None,
    lm: "dspy.LM | None" = None,
    rules: BundleRules | None = None,
    store: ArtifactStore | str | Path | None = None,
    engine: Engine = "local",
    ray: RayConfig | None = None,
    output: str | Path | None = None,
) -> list[Answer]:
    """Generate the bundles of each session, in the sessions' order.

    Answers are kept in the artifact store: a run with the same session, program and model reuses
    them, and an interrupted run resumes automatically.

    Args:
        sessions: What to answer. A session's own gold is never shown to the model. An `Answer`
            among them stands for a session that could not be read, and is passed through.
        config: Settings; None for the defaults.
        program: The program, instead of ``config.program``.
        lm: The language model, instead of the one that the config names. Without either it is the
            student with the packaged general bundler, as when a program is called.
        rules: The catalogue's rules, instead of ``config.rules``.
        store: The artifact store or its folder; None for the one in the cache folder.
        engine: local (in this process) or ray (in actors); see `answers_on_ray`, which does not
            hold all answers in memory.
        ray: Settings of Ray.
        output: With ray, the folder that keeps the answers, instead of the store; for these
            sessions only, whose ids must be distinct.

    Returns:
        One answer per session. One that could not be read has no bundles, and says why.

    Raises:
        SettingError: A setting is not allowed, a student that names bundles has no grouping, or
            rules are given although the language model states the bundles.
        DataError: The rules file cannot be read, or two rules contradict each other.

    Example:
        >>> from routedk import generate, load_sessions
        >>> answers = generate(load_sessions("demo")[:2])
        >>> [answer.session_id for answer in answers]
        ['demo-000', 'demo-001']
    """
    if engine == "local":
        if ray is not None or output is not None:
            raise SettingError("ray and output are for engine='ray'")
        return [*stream_answers(sessions, config, program=program, lm=lm, rules=rules, store=store)]
    from routedk.eval.predictions import read_predictions

    if output is None or not (program is lm is store is None):
        raise SettingError("engine='ray' takes an output; program and model are named in config")
    asked = [*sessions]
    for _ in answers_on_ray(asked, output, config, ray=ray, rules=rules):
        pass
    read = read_predictions(output, [one for one in asked if isinstance(one, Session)])
    found = {one.session_id: one for one in read}
    return [one if isinstance(one, Answer) else found[one.id] for one in asked]
