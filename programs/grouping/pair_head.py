"""`PairHead`: the logits of a session's pairs, from the embeddings of its titles."""

import torch
from torch import Tensor, nn


class PairHead(nn.Module):
    """Computes the logit that two items of a session are in one bundle, for each pair.

    The logit is linear in the cosine of the two embeddings, their elementwise product (which kinds
    of titles go together), the cosine minus the mean over the session's pairs, and the cosine minus
    each of the two items' highest, sorted (how the pair compares with others of its session). All
    of these are symmetric, so neither the order of a pair nor that of the session matters.

    Args:
        dimensions: Dimensions of the embeddings.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.cosine = nn.Parameter(torch.tensor(8.0))
        self.linear = nn.Linear(dimensions + 3, 1)
        # It starts as a plain threshold on the cosine.
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, -4.0)

    def forward(self, titles_ND: Tensor) -> Tensor:
        """Compute the logits of the pairs, in the order of the upper triangle, row by row.

        Args:
            titles_ND: Embeddings of one session's titles, at least two, each of length 1.

        *Shape:*
            - titles_ND: ``(items, dimensions)``
            - output: ``(pairs,)``
        """
        count = len(titles_ND)
        cosines = titles_ND @ titles_ND.T
        one, other = torch.triu_indices(count, count, 1, device=titles_ND.device)
        of_pair = cosines[one, other]
        itself = torch.eye(count, device=titles_ND.device, dtype=torch.bool)
        highest = cosines.masked_fill(itself, -2.0).max(dim=1).values
        behind = torch.stack([of_pair - highest[one], of_pair - highest[other]])
        features = torch.cat(
            [
                titles_ND[one] * titles_ND[other],
                (of_pair - of_pair.mean())[:, None],
                behind.amin(dim=0)[:, None],
                behind.amax(dim=0)[:, None],
            ],
            dim=1,
        )
        logits: Tensor = self.cosine * of_pair + self.linear(features)[:, 0]
        return logits
