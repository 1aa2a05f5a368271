"""The router's gates over many sessions, clustered into a few."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from routedk.errors import SettingError


def cluster(gates_SLE: Tensor, k: int, seed: int) -> Tensor:
    """Centres of gates, themselves gates, the one of most sessions first.

    With as many centres as there are distinct gates, they are these gates.

    Args:
        gates_SLE: *Shape:* (sessions, rows of gates, experts).
        k: Centres wanted.
        seed: Of KMeans.

    Returns:
        *Shape:* (k, rows of gates, experts).

    Raises:
        SettingError: There are fewer distinct gates than centres wanted.

    Source: Lloyd's k-means of scikit-learn, ten starts.
    """
    flat_SX = gates_SLE.flatten(1).double().numpy()
    distinct_DX, members = np.unique(flat_SX, axis=0, return_inverse=True)
    if k > len(distinct_DX):
        raise SettingError(
            f"k={k} prototypes: the router's gates over these {len(flat_SX)} sessions have "
            f"{len(distinct_DX)} distinct values, so k is at most {len(distinct_DX)}"
        )
    if k == len(distinct_DX):
        centres_KX, labels = distinct_DX, members.reshape(-1)
    else:
        centres_KX, labels = _kmeans(flat_SX, k, seed)
    order = sorted(
        range(k), key=lambda place: (-int((labels == place).sum()), tuple(centres_KX[place]))
    )
    centres_KLE = torch.from_numpy(centres_KX[order]).reshape(k, *gates_SLE.shape[1:])
    if k < len(distinct_DX):
        centres_KLE = centres_KLE.clamp(min=0)
        centres_KLE = centres_KLE / centres_KLE.sum(dim=-1, keepdim=True)
    return centres_KLE.float()


def _kmeans(
    flat_SX: NDArray[np.float64], k: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.cluster import KMeans

    found = KMeans(n_clusters=k, n_init=10, random_state=seed).fit(flat_SX)
    return found.cluster_centers_, found.labels_


def nearest(gates_SX: Tensor, centres_KX: Tensor) -> Tensor:
    """The place of the centre nearest to each row by Euclidean distance, the first of equals.

    *Shape:* (sessions, gates) and (prototypes, gates) to (sessions).
    """
    distances_SK = (gates_SX.double()[:, None] - centres_KX.double()).square().sum(dim=-1)
    return distances_SK.argmin(dim=-1)
