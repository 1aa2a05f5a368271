from .adapters.engine.engine import student_lm as student_lm
from .adapters.generate import GenerateConfig as GenerateConfig
from .adapters.generate import generate as generate
from .adapters.generate import stream_answers as stream_answers
from .adapters.train import TrainConfig as TrainConfig
from .adapters.train import train as train
from .data import DataOptions as DataOptions
from .data import load_sessions as load_sessions
from .data import split_sessions as split_sessions
from .data.knowledge_file import read_knowledge as read_knowledge
from .data.knowledge_file import write_knowledge as write_knowledge
from .errors import AnswerError as AnswerError
from .errors import ArtifactError as ArtifactError
from .errors import DataError as DataError
from .errors import MissingExtraError as MissingExtraError
from .errors import RouteDKError as RouteDKError
from .errors import SettingError as SettingError
from .errors import StudentError as StudentError
from .eval.evaluate import EvaluateConfig as EvaluateConfig
from .eval.evaluate import evaluate as evaluate
from .optimizers.compile import CompileConfig as CompileConfig
from .optimizers.compile import compile_program as compile_program
from .programs.distill import distill as distill
from .programs.generator import BundleGenerator as BundleGenerator
from .types import Answer as Answer
from .types import Bundle as Bundle
from .types import Item as Item
from .types import KnowledgeBase as KnowledgeBase
from .types import Pattern as Pattern
from .types import Provenance as Provenance
from .types import Rule as Rule
from .types import Session as Session
from .types import Thought as Thought

__version__: str
__all__: list[str]
