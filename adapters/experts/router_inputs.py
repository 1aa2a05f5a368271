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

In training hidden states cost nothing, since the output of these layers is kept anyway. In use they
cost one more pass through the lower layers per prompt, since gates are settled before generation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from routedk.errors import SettingError

if TYPE_CHECKING:
    from torch import Tensor

    from routedk.adapters.prompts import EncodedPrompt
    from routedk.adapters.student import Student

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


def pool_prompts(
    student: "Student", name: str, prompts: Sequence["EncodedPrompt"], first_layer: int
) -> "Tensor":
    """What a router sees of each prompt.

    Args:
        student: Without gates set.
        name: Of the router input.
        prompts: At least one.
        first_layer: The lowest layer with experts, or 0 for the input embeddings.

    Returns:
        *Shape:* (prompts, hidden).
    """
    import torch

    from routedk.adapters.experts.lower import lower_hidden
    from routedk.adapters.trees import grow_tree

    looks_at = router_input(name)
    trees = [grow_tree(prompt.ids, []) for prompt in prompts]
    layers = first_layer if looks_at.hidden else 0
    pad_id = student.tokenizer.pad_token_id
    rows = lower_hidden(student.model.model, trees, layers, pad_id)
    pooled = [
        looks_at.pool(row_TH, prompt.span, len(prompt.ids))
        for row_TH, prompt in zip(rows, prompts, strict=True)
    ]
    return torch.stack(pooled).to(student.model.device)
