"""An answer that grows, as the stream events of DSPy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dspy.lm15 import Response, StreamDeltaEvent, StreamStartEvent, TextDelta, response_to_events


@dataclass
class TextStream:
    """Turns an answer's text so far into events: a start, what is new each time, an end.

    Args:
        model: The model that is streamed from.
    """

    model: str
    _sent: str = ""

    def start(self) -> Any:
        """The first event."""
        return StreamStartEvent(id=None, model=self.model)

    def grow(self, text: str) -> Iterator[Any]:
        """What is new since the last call.

        Args:
            text: The whole text so far.
        """
        # A decoder may yet change its mind about the last character: then wait for more.
        if text.startswith(self._sent) and len(text) > len(self._sent):
            new, self._sent = text[len(self._sent) :], text
            yield StreamDeltaEvent(delta=TextDelta(text=new, part_index=0))

    def end(self, response: Response) -> Iterator[Any]:
        """What is still missing of the whole response, and the last event."""
        *_, last = response_to_events(response)
        yield from self.grow(response.message.text or "")
        yield last
