"""Experts that were trained apart, in one folder, under a fusion that learns nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import read_routing, settings_of
from routedk.adapters.student import Student
from routedk.adapters.training.examples import DEFAULT_FORM
from routedk.errors import SettingError


def join_experts(
    student: Student, folders: Sequence[str | Path], folder: str | Path, fusion: str = "uniform"
) -> RoutedStudent:
    """Put the experts of several folders together, in the order of the folders.

    Args:
        student: What they were trained on; it gets the experts.
        folders: Of experts of one shape, no name twice.
        folder: Gets all of them, as `RoutedStudent.save` writes.
        fusion: ``uniform`` or ``single:EXPERT``.

    Raises:
        SettingError: Shapes differ, a name comes twice, or the fusion is another.
        ArtifactError: A folder is not whole.
    """
    documents = [read_routing(Path(one)) for one in folders]
    shapes = [settings_of(document) for document in documents]
    names = tuple(name for shape in shapes for name in shape.experts)
    shape = replace(shapes[0], experts=names)
    for one, other in zip(folders, shapes, strict=True):
        if replace(other, experts=names) != shape:
            raise SettingError(f"{one}: experts of the shape {other}, the first are {shapes[0]}")
    if fusion != "uniform" and not fusion.startswith("single:"):
        raise SettingError(f"fusion {fusion!r}: it is uniform or single:EXPERT, nothing is learnt")
    routed = RoutedStudent(student, shape, fusion)
    for one, other in zip(folders, shapes, strict=True):
        for name in other.experts:
            routed.read_expert(name, Path(one) / f"expert_{name}")
    training = [document.get("training") or {} for document in documents]
    form = training[0].get("answer_form", DEFAULT_FORM)
    routed.freeze()
    routed.save(folder, {"training": {"answer_form": form, "apart": training}})
    return routed


def merge_gates(student: Student, experts: str | Path, folder: str | Path) -> RoutedStudent:
    """Save experts with a trained router under ``merged``, the router's mean gates.

    Args:
        student: What they were trained on; it gets the experts.
        experts: Their folder.
        folder: Gets the experts again.

    Raises:
        SettingError: The router's mean gates are not known.
        ArtifactError: The folder is not whole.
    """
    routed = RoutedStudent.load(experts, fusion="merged", student=student)
    routed.save(folder, {"training": read_routing(Path(experts)).get("training")})
    return routed
