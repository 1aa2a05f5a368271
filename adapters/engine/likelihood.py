"""How likely a student finds given texts as the rest of given lines."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from routedk.adapters.engine.generator import Generator
from routedk.adapters.engine.trees import Tree, TreeBatch, consecutive
from routedk.adapters.prompts import EncodedPrompt

# Most tokens scored in one forward pass: attention grows with their square.
_SCORED = 256


def score_texts(
    generator: Generator,
    prompt: EncodedPrompt,
    heads: Sequence[tuple[int, ...]],
    texts: Sequence[tuple[int, ...]],
) -> tuple[NDArray[np.float64], int]:
    """The log-likelihood of each text after each head.

    Args:
        generator: Of the student.
        prompt: The prompt as tokens.
        heads: At least one, none empty.
        texts: Tokens of each, at least two, the end of turn included.

    Returns:
        The likelihoods, *shape* (heads, texts), and how many tokens the tree has.
    """
    model = generator.base.model
    tree = Tree(0, prompt, tuple(heads))
    pairs = [(head, text) for head in range(len(heads)) for text in texts]
    step = max(1, _SCORED // max(map(len, texts)))
    found: list[float] = []
    with generator.computing, torch.inference_mode():
        batch = TreeBatch(model, generator.prepare([tree]), [tree])
        nodes, ends = tree.nodes()
        hidden_LH = batch.read([nodes])[0, ends]
        for first in range(0, len(pairs), step):
            some = pairs[first : first + step]
            nodes = []
            for number, (head, text) in enumerate(some, start=len(heads) + 1):
                start = len(prompt.ids) + len(heads[head])
                nodes += consecutive(text[:-1], start, number, head + 1)
            read = torch.split(batch.read([nodes])[0], [len(text) - 1 for _, text in some])
            batch.forget(len(nodes))
            for (head, text), mine_TH in zip(some, read, strict=True):
                scores_TV = model.lm_head(torch.cat([hidden_LH[[head]], mine_TH])).float()
                logs_TV = scores_TV.log_softmax(dim=-1).double()
                found.append(float(logs_TV[range(len(text)), text].sum()))
    tokens = len(prompt.ids) + sum(map(len, heads)) + sum(len(text) - 1 for _, text in pairs)
    return np.array(found).reshape(len(heads), len(texts)), tokens
