"""The base of programs that make several calls to answer one session."""

import asyncio

import dspy

from routedk.types import Session


class SessionProgram(dspy.Module):  # type: ignore[misc]  # DSPy is untyped here
    """Takes a `Session`; what it does with it is `_answer`, which blocks."""

    def forward(self, session: Session) -> dspy.Prediction:
        """Generate the bundles of one session.

        Args:
            session: The session; its gold bundles are not looked at.
        """
        return self._answer(session)

    async def aforward(self, session: Session) -> dspy.Prediction:
        """As `forward`, on a thread of its own."""
        return await asyncio.to_thread(self._answer, session)

    def _answer(self, session: Session) -> dspy.Prediction:
        raise NotImplementedError
