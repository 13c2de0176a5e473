"""The intended differences between what we send and what the published library sends, each with its reason.

A rule excuses single values, and says exactly which. What sets both sides apart for good is in `divergences.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.differential.normalise import MISSING, Difference

RTP_STREAM_IDS = (
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
)


@dataclass(frozen=True)
class Rule:
    name: str
    reason: str
    excuses: Callable[[Difference], bool]


def _error_text(it: Difference) -> bool:
    return it.path == ("answer", "error")


def _paused_source(it: Difference) -> bool:
    """`paused` of a consumer that is described to a client. The oracle's producers tell the truth."""
    if it.path[-1:] != ("paused",) or not isinstance(it.their_frame, dict):
        return False
    sources: Any = it.their_frame.get("sourcesPaused")
    if it.method == "newConsumer" and it.path == ("notification", "paused"):
        return (it.theirs, it.ours, sources) == (False, True, [True])
    if it.path[:3] == ("answer", "data", "peers") and it.path[4:5] == ("consumers",):
        peers = it.their_frame["answer"]["data"]["peers"]
        before = sum(len(peer["consumers"]) for peer in peers[: it.path[3]])
        return (it.theirs, it.ours, sources[before + it.path[5]]) == (False, True, True)
    return False


def _effective_at_enable(it: Difference) -> bool:
    enabling = it.operation.get("message", {}).get("method") == "enableConsumer"
    return (
        enabling
        and it.path == ("answer", "data", "effectiveProfile")
        and it.theirs in (None, MISSING)
        and it.ours == "none"
    )


def _rtcp(it: Difference) -> bool:
    if "rtpParameters" not in it.path:
        return False
    if it.path[-1] == "rtcp":
        return it.theirs is MISSING and set(it.ours) == {"cname", "reducedSize", "mux"}
    if it.path[-2:] == ("rtcp", "cname"):
        return it.theirs is MISSING and isinstance(it.ours, str)
    return it.path[-2:] in (("rtcp", "reducedSize"), ("rtcp", "mux")) and it.theirs is MISSING and it.ours is True


def _stream_ids(it: Difference) -> bool:
    if it.path[-2:] != ("rtpParameters", "headerExtensions"):
        return False
    return it.ours == [extension for extension in it.theirs if extension["uri"] not in RTP_STREAM_IDS]


def _nothing_to_extend(it: Difference) -> bool:
    if it.path[-2:] != ("rtpParameters", "headerExtensions") or it.ours != []:
        return False
    parameters = it.their_frame
    for step in it.path[:-1]:
        parameters = parameters[step]
    return parameters["codecs"] == []


def _refused_notification(it: Difference) -> bool:
    return (
        it.operation["do"] == "notifyAsRequest"
        and ((it.path == ("answer", "ok") and not it.ours) or it.path in (("answer", "data"), ("answer", "error")))
        and it.their_frame["answer"]["ok"]
    )


def _peer_name(it: Difference) -> bool:
    return (
        it.method in ("producerPaused", "producerResumed", "producerClosed")
        and it.path == ("notification", "peerName")
        and it.theirs == it.peer
        and it.ours is MISSING
    )


def _peer_closed_on_room_close(it: Difference) -> bool:
    closing = it.operation["do"] == "closeRoom"
    return closing and not it.path and it.method == "peerClosed" and it.ours is MISSING


def _room_app_data(it: Difference) -> bool:
    return it.operation["do"] == "closeRoom" and it.method == "closed" and it.path == ("notification", "appData")


RULES: tuple[Rule, ...] = (
    Rule(
        "error texts",
        "Our errors have a code and a reason that names the field; theirs are JavaScript's. Compared is whether "
        "there is an error.",
        _error_text,
    ),
    Rule(
        "a paused producer's consumer says so at once",
        "Their objects learn of the pause from the engine, after newConsumer and the answer to join have been made, "
        "and so announce paused: false. The client only finds out when it enables the consumer. We know at once.",
        _paused_source,
    ),
    Rule(
        "the first effective profile",
        "RoomCore is what the engine answers when the consumer is made ('none' in this test until the engine says "
        "otherwise); their engine does not answer it, so theirs is null until the first change.",
        _effective_at_enable,
    ),
    Rule(
        "rtcp is always complete",
        "They pass on the sender's rtcp. It describes the sender's transport, not the receiver's: towards receivers "
        "reducedSize and mux always hold, and the client writes cname into its SDP unseen.",
        _rtcp,
    ),
    Rule(
        "stream ids are not forwarded",
        "rtp-stream-id names simulcast streams within the sender's transport; a receiver gets one stream.",
        _stream_ids,
    ),
    Rule(
        "no header extensions without a codec",
        "A consumer whose codecs the receiver lacks is never enabled; we list nothing for it, they its extensions.",
        _nothing_to_extend,
    ),
    Rule(
        "a notification sent as a request is answered with its error",
        "They accept any well-formed notification and log what was wrong; the client cannot learn of it. A client "
        "that asks for an answer gets ours.",
        _refused_notification,
    ),
    Rule(
        "producers are the peer's own",
        "They send peerName in producerPaused, producerResumed and producerClosed, always the receiver's own name. "
        "The specification does not have it.",
        _peer_name,
    ),
    Rule(
        "a closed room has nobody to lose",
        "They close a room peer by peer, so that each is told of those before it. Nobody is left to care.",
        _peer_closed_on_room_close,
    ),
    Rule(
        "closing a room passes appData on",
        "The specification gives `closed` an appData; they drop the room's.",
        _room_app_data,
    ),
)


@dataclass
class DifferenceFilter:
    """Tells the differences that no rule excuses, and keeps count of those excused."""

    excused: Counter[str] = field(default_factory=Counter)

    def unexplained(self, differences: Iterable[Difference]) -> list[Difference]:
        found = []
        for it in differences:
            rule = next((rule for rule in RULES if rule.excuses(it)), None)
            if rule is None:
                found.append(it)
            else:
                self.excused[rule.name] += 1
        return found
