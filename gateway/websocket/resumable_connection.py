"""The socket of a resumable session: what the client numbers, and which ends are for good."""

from typing import Final

from picows import WSFrame, WSMsgType, WSTransport

from gateway.bus.partition_publisher import PartitionPublisher
from gateway.protocol import frame_validation
from gateway.protocol.resumable_session import FramePosition, ResumableSession
from gateway.websocket.connection import Connection
from gateway.websocket.hub import Hub
from shared import errors
from shared.protocol.client import SESSION
from shared.protocol.protoo import Frame

_FINAL: Final = frozenset({0, 1000, 4000})
"""Close codes (0: none) with which a client says that it will not come back."""
_FINAL_HERE: Final = frozenset({errors.MISNUMBERED.code, errors.PROTOCOL.code, errors.TOO_BIG.code})
"""Codes with which we end what would only happen again: the client would send the same once more. See `refused`."""


class ResumableConnection(Connection):
    session: ResumableSession

    __slots__ = ()

    def __init__(self, hub: Hub, session: ResumableSession, publisher: PartitionPublisher, peer: str) -> None:
        super().__init__(hub, session, publisher, peer)
        self._bucket = hub.bucket(resumed=session.resuming)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE and not (self.closing or transport.is_close_frame_sent):
            self.session.final = int(frame.get_close_code()) in _FINAL  # type: ignore[call-overload]
        super().on_ws_frame(transport, frame)

    def close(self, code: int, reason: str) -> None:
        if not self.closing and code in _FINAL_HERE:
            self.session.final = True
        super().close(code, reason)

    def refused(self, code: int) -> None:
        self.session.final = code in _FINAL_HERE
        super().refused(code)

    def _handle(self, verdict: frame_validation.ValidationResult) -> None:
        match self.session.place(verdict):
            case FramePosition.NEXT:
                super()._handle(verdict)
            case FramePosition.DUPLICATE:
                self.hub.counters.duplicates_total += 1
            case FramePosition.AHEAD:
                self.close_as(errors.GAP)
            case FramePosition.OUT_OF_SEQUENCE:
                self.close_as(errors.MISNUMBERED)
            case FramePosition.UNNUMBERED:
                self._unnumbered(self._rate_limited(verdict))

    def _keep(self, verdict: frame_validation.ValidationResult) -> None:
        """Whatever has a number goes to the worker, or the next would wait for it for ever (I2)."""
        super()._keep(verdict)
        match verdict:
            case frame_validation.MalformedFrame():
                self.session.refuse(None, errors.BadPayload.code, verdict.reason)
            case frame_validation.RejectedNotification():
                self.session.refuse(None, verdict.code, verdict.reason)
            case frame_validation.Response():
                self.session.refuse(None, errors.BadPayload.code, "response: nothing was asked")
            case Frame() | frame_validation.RejectedRequest():
                pass

    def _unnumbered(self, verdict: frame_validation.ValidationResult) -> None:
        match verdict:
            case Frame(notification=True, method=method) if method == SESSION:
                if self.session.greeted:
                    self.write(self.session.acknowledge())
            case (
                frame_validation.RejectedNotification(code=code, reason=reason)
                | frame_validation.RejectedRequest(code=code, reason=reason)
            ) if code != 400:
                self.hub.dropped(self, frame_validation.RejectedNotification(code, reason))
            case frame_validation.MalformedFrame(reason=reason):
                self._complain(reason)
            case _:
                self._complain("cseq: missing")

    def _complain(self, reason: str) -> None:
        """Before the greeting nobody listens yet."""
        if self.session.greeted:
            super()._complain(reason)
