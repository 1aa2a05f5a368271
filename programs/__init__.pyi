from .aicl.program import AICL as AICL
from .batch import generate_all as generate_all
from .consensus import Consensus as Consensus
from .consensus import central_prediction as central_prediction
from .distill import distill_artifact as distill_artifact
from .distill_plan import plan_distill as plan_distill
from .distill_plan import write_requests as write_requests
from .generator import BundleGenerator as BundleGenerator
from .generator import load_program as load_program
from .grouping.similar_intents import SimilarIntents as SimilarIntents
from .journal.budget import BudgetError as BudgetError
from .knowledge.compiled import CompiledKnowledge as CompiledKnowledge
from .prompting.answers import ParsedAnswer as ParsedAnswer
from .prompting.answers import read_answer as read_answer
from .prompting.asked import asked_items as asked_items
from .prompting.bundle_adapter import BundleLayout as BundleLayout
from .prompting.layout import Prompt as Prompt
from .prompting.layout import build_prompt as build_prompt
from .prompting.signatures import GenerateBundles as GenerateBundles
from .sampling.difficulty import score_sessions as score_sessions
from .sampling.sampling import sample_sessions as sample_sessions
from .teachers.accumulate import accumulate as accumulate
from .teachers.accumulate import of_domain as of_domain
from .teachers.config import DistillConfig as DistillConfig
from .usage import Usage as Usage
from .usage import metered as metered

__all__: list[str]
