"""Being asked to stop: SIGINT (Ctrl-C) and SIGTERM end a run after the step in progress."""

import signal
from types import FrameType


class PreemptionHandler:
    """Notes a request to stop; a second Ctrl-C is no request and ends the program at once."""

    def __init__(self) -> None:
        """Starts to listen; only the main thread of a process may."""
        self._signal: int | None = None
        signal.signal(signal.SIGINT, self._note)
        signal.signal(signal.SIGTERM, self._note)

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._signal is not None

    @property
    def exit_status(self) -> int:
        """What the program ends with: 130 after Ctrl-C, as shells expect, 0 when told to end."""
        return 130 if self._signal == signal.SIGINT else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
