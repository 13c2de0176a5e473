"""Joins the fragments of a message (RFC 6455 §5.4), which picows leaves to its user."""

from typing import Final

from picows import WSFrame, WSMsgType

_OVERHEAD: Final = 64
"""The bytes that an unfinished message takes beside its own."""


class UnfinishedMessage:
    """A message that has begun and not ended. `size` is that of what has come; of a binary one nothing is kept."""

    __slots__ = ("_is_text", "_kept", "size")

    def __init__(self, first: WSFrame) -> None:
        self._is_text = first.msg_type == WSMsgType.TEXT
        self._kept = bytearray()
        self.size = 0
        self.add(first)

    def add(self, fragment: WSFrame) -> None:
        """Takes the next fragment."""
        self.size += fragment.payload_size
        if self._is_text:
            self._kept += fragment.get_payload_as_memoryview()

    @property
    def held_bytes(self) -> int:
        """Bytes in memory."""
        return len(self._kept) + _OVERHEAD

    def text(self) -> str | None:
        """Returns the whole text; None if the message is binary. Raises UnicodeDecodeError."""
        return self._kept.decode() if self._is_text else None
