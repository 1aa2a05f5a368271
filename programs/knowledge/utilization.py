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

from typing import Literal

UtilizationName = Literal["ICL", "SFT", "SFT+ICL"]


def is_trained(utilization: str) -> bool:
    """Whether experts are trained, with the knowledge in their prompts."""
    return "SFT" in utilization.split("+")


def is_shown(utilization: str) -> bool:
    """Whether the compiled prompt holds the knowledge."""
    return "ICL" in utilization.split("+")
