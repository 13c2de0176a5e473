"""Fuzzes a room with frames of a client: the gateway validates them, and the room core carries out the valid ones."""

from random import Random
from typing import Any, Final

from gateway.protocol.frame_validation import validate
from shared.protocol import client
from shared.protocol.protoo import Frame
from tests.fuzz.mutations import changed_bytes, changed_json, to_json
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import CAPABILITIES, DTLS, OPUS, VP8
from tests.unit.roomworker.room_harness import RoomHarness
from tests.unit.roomworker.room_snapshots import snapshot

FRAME_LIMIT: Final = 256 * 1024
INPUTS_PER_ROOM: Final = 200
"""Inputs after which the room is built anew, to repeat one that went wrong begin with so many before it."""
_REASON_CHARS: Final = 400
REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "queryRoom": {},
    "join": {"peerName": "alice", "rtpCapabilities": CAPABILITIES, "appData": {"a": [1]}},
    "createTransport": {"id": 5, "direction": "send", "options": {"udp": True}, "dtlsParameters": DTLS},
    "restartTransport": {"id": 1},
    "createProducer": {"id": 5, "kind": "video", "transportId": 1, "rtpParameters": VP8, "paused": False},
    "enableConsumer": {"id": 2, "transportId": 2, "paused": False, "preferredProfile": "low"},
}
NOTIFICATIONS: Final[dict[str, dict[str, Any]]] = {
    "updateTransport": {"id": 1, "dtlsParameters": DTLS},
    "closeTransport": {"id": 1},
    "pauseProducer": {"id": 10, "appData": {}},
    "resumeProducer": {"id": 10},
    "closeProducer": {"id": 10},
    "pauseConsumer": {"id": 2},
    "resumeConsumer": {"id": 2},
    "setConsumerPreferredProfile": {"id": 2, "profile": "low"},
    "updateProducer": {"id": 10, "rtpParameters": OPUS},
    "enableTransportStats": {"id": 1, "interval": 1},
    "disableProducerStats": {"id": 10},
    "leave": {},
}


def _samples() -> list[Any]:
    """Returns one valid frame for each message of the specification."""
    frames: list[Any] = [
        {"request": True, "id": 7, "method": client.REQUEST, "data": {"method": method, **data}}
        for method, data in REQUESTS.items()
    ]
    frames += [
        {
            "notification": True,
            "method": client.NOTIFICATION,
            "data": {"method": method, "notification": True, **data},
        }
        for method, data in NOTIFICATIONS.items()
    ]
    return [*frames, {"response": True, "id": 7, "ok": True, "data": {}}]


SAMPLE_FRAMES: Final = _samples()
_ENCODED: Final = [to_json(frame).encode() for frame in SAMPLE_FRAMES]


class RoomTarget:
    """A call of two, one of whom sends frames of which some part is changed. The room is built anew now and then."""

    name = "room"

    def __init__(self) -> None:
        self._build()

    def _build(self) -> None:
        self._inputs = 0
        self._harness = RoomHarness()
        bob = self._harness.sending("bob")
        self._alice: Client = self._harness.sending("alice")
        bob.produce(10)
        self._alice.produce(10)

    def check(self, rng: Random) -> str:
        """Sends one frame and returns its outcome. Raises if a refused one changed the room, or anything failed."""
        self._inputs += 1
        if self._inputs > INPUTS_PER_ROOM or self._alice.peer not in self._harness.room.peers:
            self._build()
        text = self._input(rng)
        result = validate(text, len(text.encode("utf-8", "surrogatepass")), FRAME_LIMIT)
        if not isinstance(result, Frame):
            reason = getattr(result, "reason", "")
            if len(reason) > _REASON_CHARS:
                raise AssertionError(f"a reason of {len(reason)} characters: {reason[:200]}")
            return f"gateway: {type(result).__name__}"
        return self._apply(result)

    def _input(self, rng: Random) -> str:
        if rng.random() < 0.3:
            return changed_bytes(rng, rng.choice(_ENCODED), _ENCODED).decode("utf-8", "replace")
        frame = rng.choice(SAMPLE_FRAMES)
        if rng.random() < 0.05:
            return to_json(frame)
        if rng.random() < 0.1:
            return to_json(changed_json(rng, frame))
        return to_json({**frame, "data": changed_json(rng, frame["data"])})

    def _apply(self, frame: Frame) -> str:
        alice, harness = self._alice, self._harness
        before, sent = snapshot(harness.room), len(alice.sent)
        id_ = None
        if frame.request:
            alice.ids += 1
            id_ = alice.ids
        harness.receive(alice.input(frame.method, id_, bytes(frame.data)))
        if harness.defects:
            raise AssertionError(f"a defect: {harness.defects[0]!r}") from harness.defects[0]
        answers = [it for it in alice.frames[sent:] if it.get("response") and it["id"] == id_]
        if id_ is None:
            return "room: notification"
        (answer,) = answers
        if answer.get("ok"):
            return "room: done"
        if len(answer["errorReason"]) > _REASON_CHARS:
            raise AssertionError(f"a reason of {len(answer['errorReason'])} characters")
        after = snapshot(harness.room)
        for records in (before, after):
            records.pop(f"session|{alice.peer}", None)
        if before != after:
            raise AssertionError(
                f"refused with {answer['errorCode']} {answer['errorReason']!r}, and changed the room"
            )
        return f"room: {answer['errorCode']}"
