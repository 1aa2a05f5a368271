"""Utilization: where distilled knowledge is used.

| utilization | experts are trained | knowledge in training prompts | in the compiled prompt |
|-------------|---------------------|-------------------------------|------------------------|
| `ICL`       | no                  | -                             | yes                    |
| `SFT`       | yes                 | yes                           | no                     |
| `SFT+ICL`   | yes                 | yes                           | yes                    |

Source: the three ways are those of arXiv 2504.17220, and RouteDK (arXiv 2508.17250) trains
experts on knowledge. Both leave open whether experts see knowledge in their training prompts or
in what they learn to write, and what the prompt holds at inference under `SFT`: the table's answers
are assumptions. Neighbours without thoughts are examples, not distilled knowledge.
"""

from typing import Literal

UtilizationName = Literal["ICL", "SFT", "SFT+ICL"]


def is_trained(utilization: str) -> bool:
    """Whether experts are trained, with the knowledge in their prompts."""
    return "SFT" in utilization.split("+")


def is_shown(utilization: str) -> bool:
    """Whether the compiled prompt contains the knowledge."""
    return "ICL" in utilization.split("+")
