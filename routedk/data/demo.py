"""The embedded demo set: synthetic sessions generated from a catalogue by a seed."""

from routedk.types import Bundle, Item, Session


def demo_sessions(*, count: int = 300, seed: int = 0) -> list[Session]:
    """Synthetic sessions (placeholder until the catalogue is in)."""
    pair = (Item("a", "Fernhill Kettle"), Item("b", "Fernhill Mug"), Item("c", "Desk Lamp"))
    return [Session(str(n), pair, (Bundle(("a", "b"), "tea"),)) for n in range(count)]
