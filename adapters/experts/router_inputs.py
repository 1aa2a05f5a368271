"""What the router sees of a prompt: one vector, the mean over some of its tokens.

| name             | mean of                                      | over                         |
|------------------|----------------------------------------------|------------------------------|
| `session`        | input embeddings                             | the session's own tokens     |
| `prompt`         | input embeddings                             | the whole prompt             |
| `session-hidden` | what enters the lowest layer with experts    | the session's own tokens     |
| `prompt-hidden`  | what enters the lowest layer with experts    | the whole prompt             |

Over the whole prompt the router sees which knowledge stands in it; `session` sees the session
alone, whatever knowledge goes with it. In a hidden layer the session's tokens have read what
stands before them. The layers below the experts are the frozen student's, so that their output is
the same in training and in use, whatever the experts are.

In training it costs nothing, for the output of these layers is kept there anyway
(`routedk.adapters.training.lower`). In use it costs the lower layers once more for each prompt,
since the gates are settled before generation begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from routedk.errors import SettingError

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_INPUT = "session"


@dataclass(frozen=True, slots=True)
class RouterInput:
    """One row of this module's table.

    Args:
        whole: Whether the mean is over the whole prompt.
        hidden: Whether it is of hidden states.
    """

    whole: bool
    hidden: bool

    def pool(self, vectors_TH: "Tensor", span: tuple[int, int], length: int) -> "Tensor":
        """The mean over the tokens it looks at.

        Args:
            vectors_TH: One vector per token; what follows the prompt is not looked at.
                *Shape:* (tokens, hidden).
            span: First token and one past the last token of the session.
            length: Tokens of the prompt.

        Returns:
            In float32. *Shape:* (hidden).
        """
        start, end = (0, length) if self.whole else span
        return vectors_TH[start:end].float().mean(dim=0)


ROUTER_INPUTS: Mapping[str, RouterInput] = MappingProxyType(
    {
        "session": RouterInput(whole=False, hidden=False),
        "prompt": RouterInput(whole=True, hidden=False),
        "session-hidden": RouterInput(whole=False, hidden=True),
        "prompt-hidden": RouterInput(whole=True, hidden=True),
    }
)


def router_input(name: str) -> RouterInput:
    """The router input of this name.

    Raises:
        SettingError: There is none.
    """
    if name not in ROUTER_INPUTS:
        raise SettingError(f"router input {name!r}: allowed are {', '.join(ROUTER_INPUTS)}")
    return ROUTER_INPUTS[name]
