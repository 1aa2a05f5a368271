"""Utilization: where distilled knowledge is used.

| utilization | experts are trained | knowledge in training prompts | in the compiled prompt |
|-------------|---------------------|-------------------------------|------------------------|
| `ICL`       | no                  | -                             | yes                    |
| `SFT`       | yes                 | yes                           | no                     |
| `SFT+ICL`   | yes                 | yes                           | yes                    |

Source: the three ways are those of arXiv 2504.17220, and RouteDK (arXiv 2508.17250) trains
experts of knowledge. That experts see the knowledge in the prompts they are trained on, and not in
what they learn to write, and that under `SFT` none of it is in the prompt at inference, is
left open there: assumptions. Neighbours without thoughts are examples, not distilled knowledge.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

UtilizationName = Literal["ICL", "SFT", "SFT+ICL"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Utilization:
    """One way of using distilled knowledge.

    Args:
        trains: Experts are trained, with the knowledge in their prompts.
        prompts: The compiled prompt holds it.
    """

    trains: bool
    prompts: bool


UTILIZATIONS: Mapping[str, Utilization] = MappingProxyType(
    {
        "ICL": Utilization(trains=False, prompts=True),
        "SFT": Utilization(trains=True, prompts=False),
        "SFT+ICL": Utilization(trains=True, prompts=True),
    }
)
