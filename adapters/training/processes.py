"""Training in several processes, as ``accelerate launch`` or ``torchrun`` start them.

Each process computes its part of every batch. Losses are means over the batch of all processes,
and only the main process writes files; a single process is the main one.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from routedk.artifacts import Artifact, ArtifactStore, Recipe


def join() -> None:
    """Find the other processes, if any, and take this one's GPU."""
    PartialState(cpu=not torch.cuda.is_available())
    if not is_main():
        disable_progress_bar()  # transformers' own


def is_main() -> bool:
    """Whether this process writes files."""
    main: bool = PartialState().is_main_process
    return main


def place() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    state = PartialState()
    return state.process_index, state.num_processes


def obtain_together(
    store: ArtifactStore, recipe: Recipe, make: Callable[[Path, Path], None]
) -> Artifact:
    """Like `ArtifactStore.obtain`, but called by all processes, which make the artifact together.

    Args:
        store: On a disk that all processes see.
        recipe: The artifact's recipe.
        make: Run by all processes; only the main one may write.
    """
    if place()[1] == 1:
        return store.obtain(recipe, make)
    folders: list[Path | None] = [None, None]
    if is_main():
        announced = False

        def announce_and_make(out: Path, work: Path) -> None:
            nonlocal announced
            announced = True
            broadcast_object_list([out, work])
            make(out, work)

        store.obtain(recipe, announce_and_make)
        if not announced:
            broadcast_object_list(folders)
    else:
        out, work = broadcast_object_list(folders)
        if out is not None:
            make(out, work)
    PartialState().wait_for_everyone()
    made = store.find(recipe)
    assert made is not None, f"the other processes do not see {store.root}"
    return made


def total(values: Tensor) -> Tensor:
    """The sum over all processes, without gradients."""
    summed: Tensor = reduce(values.detach(), reduction="sum")
    return summed


def shared_mean(values: Tensor) -> Tensor:
    """The mean over the first dimension of the values of all processes.

    It is the same in all processes; its gradient reaches only this process's own values, of which
    there may be none.
    """
    own = values.sum(dim=0)
    count = total(torch.tensor(len(values), device=values.device)).clamp(min=1)
    return (own + (total(own) - own.detach())) / count


def for_averaging(loss: Tensor) -> Tensor:
    """A loss of `shared_mean`s for processes whose gradients are averaged, as DDP does.

    The value stays the same; the gradient is multiplied by the number of processes, so that the
    average of the parts is their sum.
    """
    _, processes = place()
    return loss if processes == 1 else loss.detach() + processes * (loss - loss.detach())
