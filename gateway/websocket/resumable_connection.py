"""Connects a socket with a resumable session: checks the numbers of frames, and which close codes end the session."""

from typing import Final, assert_never

from picows import WSFrame, WSMsgType, WSTransport

from gateway.protocol.events import Events
from gateway.protocol.frame_validation import (
    MalformedFrame,
    RejectedNotification,
    RejectedRequest,
    Response,
    ValidationResult,
)
from gateway.protocol.resumable_session import FramePosition, ResumableSession
from gateway.websocket.connection import Connection
from shared import errors
from shared.protocol.client import SESSION
from shared.protocol.protoo import Frame

FINAL_CODES_OF_CLIENTS: Final = frozenset({0, 1000, 4000})
"""The close codes (0: none) with which a client says that it will not come back."""
FINAL_CODES_OF_GATEWAY: Final = frozenset(
    {
        errors.MISNUMBERED.code,
        errors.PROTOCOL.code,
        errors.INVALID_TEXT.code,
        errors.OVER_RATE.code,
        errors.TOO_BIG.code,
    }
)
"""The close codes of the gateway that end the session: the resumed client would only send the same once more."""


class ResumableConnection(Connection):
    """A WebSocket with a resumable session."""

    session: ResumableSession

    __slots__ = ()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE and not (self.closing or transport.is_close_frame_sent):
            self.session.final = int(frame.get_close_code()) in FINAL_CODES_OF_CLIENTS  # type: ignore[call-overload]
        super().on_ws_frame(transport, frame)

    def close(self, code: int, reason: str) -> None:
        if not self.closing and code in FINAL_CODES_OF_GATEWAY:
            self.session.final = True
        super().close(code, reason)

    def closed_by_picows(self, code: int) -> None:
        self.session.final = code in FINAL_CODES_OF_GATEWAY
        super().closed_by_picows(code)

    def _handle(self, frame: ValidationResult) -> None:
        position = self.session.position_of(frame)
        match position:
            case FramePosition.NEXT:
                super()._handle(frame)
            case FramePosition.DUPLICATE:
                self.hub.counters.duplicates_total += 1
            case FramePosition.AHEAD:
                self.close_as(errors.GAP)
            case FramePosition.OUT_OF_SEQUENCE:
                self.close_as(errors.MISNUMBERED)
            case FramePosition.UNNUMBERED:
                self._handle_unnumbered(self._refuse_above_rate(frame))
            case _:
                assert_never(position)

    def _forward(self, frame: ValidationResult) -> Events:
        """Makes every numbered frame an input, or the room worker would wait for it for ever (DELIVERY I2)."""
        events = super()._forward(frame)
        match frame:
            case MalformedFrame():
                return self.session.reject(None, errors.BadPayload.code, frame.reason)
            case RejectedNotification():
                return self.session.reject(None, frame.code, frame.reason)
            case Response():
                return self.session.reject(None, errors.BadPayload.code, "response: nothing was asked")
            case Frame() | RejectedRequest():
                return events
            case _:
                assert_never(frame)

    def _handle_unnumbered(self, frame: ValidationResult) -> None:
        match frame:
            case Frame(notification=True, method=method) if method == SESSION:
                if self.session.established:
                    self.enqueue(self.session.acknowledge())
                    self.flush()
            case RejectedNotification(code=code, reason=reason) | RejectedRequest(code=code, reason=reason) if (
                code != errors.BadPayload.code
            ):
                self.hub.count_rejected_notification(self, RejectedNotification(code, reason))
            case MalformedFrame(reason=reason):
                self._report_malformed(reason)
            case Frame() | RejectedNotification() | RejectedRequest() | Response():
                self._report_malformed("cseq: missing")
            case _:
                assert_never(frame)

    def _report_malformed(self, reason: str) -> None:
        """Answers a malformed frame once the session is established; before, the client expects nothing else."""
        if self.session.established:
            super()._report_malformed(reason)
