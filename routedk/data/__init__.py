"""Reading, writing and splitting sessions."""

from routedk.data.demo import demo_sessions
from routedk.data.load import DEMO, from_dataset, load_sessions, read_extra_titles
from routedk.data.native import to_dataset, write_jsonl, write_parquet
from routedk.data.options import DataOptions, GoldPolicy, SplitName, UntitledPolicy
from routedk.data.policies import apply_policies, has_title, minimal_bundles, require_titles
from routedk.data.records import session_from_record, session_to_record
from routedk.data.split import Part, select_split, split_sessions

__all__ = [
    "DEMO",
    "DataOptions",
    "GoldPolicy",
    "Part",
    "SplitName",
    "UntitledPolicy",
    "apply_policies",
    "demo_sessions",
    "from_dataset",
    "has_title",
    "load_sessions",
    "minimal_bundles",
    "read_extra_titles",
    "require_titles",
    "select_split",
    "session_from_record",
    "session_to_record",
    "split_sessions",
    "to_dataset",
    "write_jsonl",
    "write_parquet",
]
