"""How likely a student finds given texts as the rest of given lines."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from routedk.adapters.engine.generator import Generator
from routedk.adapters.engine.trees import Tree, TreeBatch, consecutive
from routedk.adapters.prompts import EncodedPrompt


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
    found: list[float] = []
    with generator.computing, torch.inference_mode():
        batch = TreeBatch(model, generator.prepare([tree]), [tree])
        nodes, ends = tree.nodes()
        hidden_LH = batch.read([nodes])[0, ends]
        # Head by head: attention grows with the square of what is read at once.
        for place, head in enumerate(heads):
            start, nodes = len(prompt.ids) + len(head), []
            for number, text in enumerate(texts, start=len(heads) + 1):
                nodes += consecutive(text[:-1], start, number, place + 1)
            read = torch.split(batch.read([nodes])[0], [len(text) - 1 for text in texts])
            batch.forget(len(nodes))
            for text, mine_TH in zip(texts, read, strict=True):
                scores_TV = model.lm_head(torch.cat([hidden_LH[[place]], mine_TH])).float()
                logs_TV = scores_TV.log_softmax(dim=-1).double()
                found.append(float(logs_TV[range(len(text)), text].sum()))
    written = len(heads) * sum(len(text) - 1 for text in texts)
    tokens = len(prompt.ids) + sum(map(len, heads)) + written
    return np.array(found).reshape(len(heads), len(texts)), tokens
