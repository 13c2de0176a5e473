"""A peer's view of its room: the peers and the media that it may receive, from its notifications."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from loadtest.model.event_order import Key, Kind, Listed, Member
from loadtest.model.pauses import ConsumerPauses
from loadtest.model.recorder import Recorder
from loadtest.model.room import Room
from shared.protocol.client import MESSAGE, NOTIFICATION


@dataclass
class Consumer:
    """A consumer of a producer of `source`, which the source created in that `life`.

    `n` is the number of the producer's event in that life, 0 if it has none.
    """

    source: str
    life: int
    n: int = 0
    kind: str = ""
    source_paused: bool = False
    paused: bool = False
    """Whether the receiving peer paused it."""
    transport: int | None = None
    """The transport when the consumer is enabled, otherwise None."""
    pauses: ConsumerPauses | None = None


class RoomView:
    """The view of one life of one peer. `peers` has the others' lives by name.

    This class checks membership and messages; a subclass checks media.
    """

    def __init__(self, room: Room, member: Member, recorder: Recorder) -> None:
        self.name = member.name
        self.member = member
        self.joined = False
        self.peers: dict[str, int] = {}
        self.consumers: dict[int, Consumer] = {}
        self._room = room
        self._recorder = recorder

    # --- what its own peer does ---------------------------------------------------------------------------

    def record_join(self, peers: Iterable[dict[str, Any]]) -> None:
        """Records the answer to a join; `peers` is its list of the peers in the room (§join)."""
        self.joined = True
        listed: dict[str, tuple[int, frozenset[int]]] = {}
        for peer in peers:
            life = peer["appData"]["life"]
            self.peers[peer["name"]] = life
            listed[peer["name"]] = (life, self._numbers(peer["consumers"]))
            for consumer in peer["consumers"]:
                self._add_consumer(consumer)
        self._join_log(listed)

    def _join_log(self, listed: Listed) -> None:
        self._room.log.joined(self.member, listed)
        self._room.direct.joined(self.name)

    def record_leave(self, key: Key) -> None:
        """Records the answer to a leave, whose event is `key`."""
        self._room.log.left(self.member, key)
        self.joined = False

    def ended(self) -> None:
        """Records the end of the session, before or after the join."""
        self._room.log.ended(self.member)
        self._room.direct.ended(self.name)
        self.joined = False

    def observe(self, key: Key, kind: Kind, about: int = 0) -> None:
        """Records an event that all see: another peer's from a notification, or the peer's own from an answer."""
        self._room.log.observe(self.member, key, kind, about)

    # --- what it is told ------------------------------------------------------------------------------------

    def notified(self, method: str, data: Any) -> None:
        now = time.monotonic()
        if not self.joined:
            self._fail("mismatch", f"was told {method} {str(data)[:200]} while it was in no room")
        elif method == MESSAGE:
            self._message(data["from"], data["data"], now)
        elif method == NOTIFICATION:
            self._notification(data["method"], data, now)
        else:
            self._fail("mismatch", f"was told {method} {str(data)[:200]}")

    def _message(self, sender: str, content: Any, now: float) -> None:
        self._recorder.current.notified("message", now - content["t"])
        if "one" in content:
            self._room.direct.received(sender, self.name, content["one"])
        else:
            self.observe(Key(sender, content["life"], content["n"]), "message")

    def _notification(self, what: str, data: Any, now: float) -> None:
        match what:
            case "newPeer":
                about = data["appData"]
                self._recorder.current.notified(what, now - about["t"])
                self.peers[data["name"]] = about["life"]
                self.observe(Key(data["name"], about["life"], 0), "join")
            case "peerClosed":
                self._peer_closed(data, now)
            case "newConsumer":
                self._new_consumer(data, now)
            case "consumerClosed":
                self._count(what)
                if data["id"] in self.consumers:
                    self._consumer_closed(data["id"])
                else:
                    self._fail("mismatch", f"consumerClosed {data['id']}, which is not there")
            case "consumerPaused" | "consumerResumed":
                self._count(what)
                self._source_paused(data["id"], paused=what == "consumerPaused")
            case "transportClosed":
                self._count(what)
                self._transport_closed(data["id"])
            case "consumerEffectiveProfileChanged":
                self._count(what)
            case _:
                self._fail("mismatch", f"was told {what} {str(data)[:200]}, which nothing here leads to")

    def _add_consumer(self, data: Any) -> Consumer:
        source = data["peerName"]
        life = self._life_of(data)
        if data["id"] in self.consumers:
            self._fail("duplicated", f"newConsumer {data['id']}, which is there")
        if source not in self.peers or self.peers[source] != life:
            self._fail("mismatch", f"newConsumer {data['id']} of {source}, who is not there")
        consumer = Consumer(source, life, kind=data["kind"], source_paused=data["paused"])
        self.consumers[data["id"]] = consumer
        return consumer

    def _peer_closed(self, data: Any, now: float) -> None:
        name = data["name"]
        life = self.peers.pop(name, None)
        if life is None:
            self._fail("mismatch", f"peerClosed {name}, who is not there")
            return
        if isinstance(about := data.get("appData"), dict):
            self._recorder.current.notified("peerClosed", now - about["t"])
        leave = self._room.life(name, life).leave
        self._remove_consumers_of(name, leave)
        self.observe(Key(name, life, leave), "leave")

    # --- media: what a subclass knows better ------------------------------------------------------------------

    def _numbers(self, consumers: Iterable[dict[str, Any]]) -> frozenset[int]:
        """Returns the numbers of a peer's open producers, as far as the log has them."""
        return frozenset()

    def _life_of(self, consumer: Any) -> int:
        """Returns the life in which the source of a new consumer created its producer."""
        return self.peers.get(consumer["peerName"], 0)

    def _new_consumer(self, data: Any, now: float) -> None:
        self._count("newConsumer")
        self._add_consumer(data)

    def _consumer_closed(self, id_: int) -> None:
        del self.consumers[id_]

    def _remove_consumers_of(self, source: str, leave: int) -> None:
        """Removes the consumers of a source that left; `leave` is the number of its leave, `END` without one."""
        self.consumers = {id_: it for id_, it in self.consumers.items() if it.source != source}

    def _source_paused(self, id_: int, *, paused: bool) -> None:
        if id_ in self.consumers:
            self.consumers[id_].source_paused = paused
        else:
            self._fail("mismatch", f"its source is {'paused' if paused else 'resumed'}: consumer {id_} is not there")

    def _transport_closed(self, id_: int) -> None:
        """Handles a transport of this peer that the server closed."""

    # --- reports ---------------------------------------------------------------------------------------------

    def _count(self, what: str) -> None:
        self._recorder.current.counts[what] += 1

    def _fail(self, kind: str, text: str) -> None:
        self._recorder.fail(kind, f"{self._room.name}/{self.name}: {text}")


OnConsumer = Callable[[int, float], None]
"""Called with a new consumer's id, and when the notification arrived (seconds, monotonic)."""
