"""What a peer believes of its room, from what it is told; says what cannot be."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtest.model.pauses import Listener
from loadtest.model.recorder import Recorder
from loadtest.model.room import Room
from loadtest.model.room_log import END, Key, Kind, Member
from shared.protocol.client import MESSAGE, NOTIFICATION


@dataclass
class Consumer:
    source: str
    life: int
    n: int
    kind: str
    listener: Listener | None = None
    """Once it is enabled."""
    paused: bool = False
    """By its own peer."""


class View:
    """Of one life. `peers` has the others' lives by name; `on_consumer` gets each consumer that is new, and when."""

    def __init__(
        self,
        room: Room,
        member: Member,
        recorder: Recorder,
        on_consumer: Callable[[int, float], None],
        on_transport_closed: Callable[[], None],
    ) -> None:
        self.name = member.name
        self.member = member
        self.joined = False
        self.peers: dict[str, int] = {}
        self.consumers: dict[int, Consumer] = {}
        self._room = room
        self._recorder = recorder
        self._on_consumer = on_consumer
        self._on_transport_closed = on_transport_closed

    def has_joined(self, told: list[dict[str, Any]]) -> None:
        """`told` is who was there (§join: `peers`)."""
        self.joined = True
        listed = {}
        for peer in told:
            life = peer["appData"]["life"]
            self.peers[peer["name"]] = life
            listed[peer["name"]] = (life, frozenset(it["appData"]["n"] for it in peer["consumers"]))
            for consumer in peer["consumers"]:
                self._add_consumer(consumer)
        self._room.log.joined(self.member, listed)
        self._room.direct.joined(self.name)

    def leaving(self) -> dict[int, int]:
        """By consumer, how many turns of its producer it must know of when it leaves now."""
        return {id_: it.listener.turns.answered for id_, it in self.consumers.items() if it.listener}

    def has_left(self, key: Key, known: dict[int, int]) -> None:
        """`key` is its leave, `known` what `leaving` said when that was asked for."""
        for id_, consumer in self.consumers.items():
            if (listener := consumer.listener) is not None:
                listener.leave(known.get(id_, listener.least), listener.turns.asked, self._recorder.wrong)
        self._room.log.left(self.member, key)
        self.joined = False

    def ended(self) -> None:
        """The session ended, whether or not it had joined."""
        self._room.log.ended(self.member)
        self._room.direct.ended(self.name)
        self.joined = False

    def told(self, method: str, data: Any) -> None:
        now = time.monotonic()
        if not self.joined:
            self._wrong("unlike", f"told {method} {str(data)[:200]}, and it is in no room")
        elif method == MESSAGE:
            self._heard(data["from"], data["data"], now)
        elif method == NOTIFICATION:
            self._told(data["method"], data, now)
        else:
            self._wrong("unlike", f"told {method} {str(data)[:200]}")

    def _heard(self, sender: str, said: Any, now: float) -> None:
        self._recorder.current.told("message", now - said["t"])
        if "one" in said:
            self._room.direct.heard(sender, self.name, said["one"])
        else:
            self.saw(Key(sender, said["life"], said["n"]), "message")

    def _told(self, what: str, data: Any, now: float) -> None:
        match what:
            case "newPeer":
                about = data["appData"]
                self._recorder.current.told(what, now - about["t"])
                self.peers[data["name"]] = about["life"]
                self.saw(Key(data["name"], about["life"], 0), "join")
            case "peerClosed":
                self._peer_closed(data, now)
            case "newConsumer":
                about = data["appData"]
                self._recorder.current.told(what, now - about["t"])
                self._add_consumer(data)
                self.saw(Key(data["peerName"], about["life"], about["n"]), "producer")
                self._on_consumer(data["id"], now)
            case "consumerClosed":
                self._recorder.current.counts[what] += 1
                self._consumer_closed(data["id"])
            case "consumerPaused" | "consumerResumed":
                self._recorder.current.counts[what] += 1
                consumer = self.consumers.get(data["id"])
                if consumer is None or consumer.listener is None:
                    self._wrong("unlike", f"{what} {data['id']}, which is not enabled")
                else:
                    consumer.listener.hear(what == "consumerPaused", self._recorder.wrong)
            case "transportClosed":
                self._wrong("unlike", f"{what}: its media is lost")
                self._on_transport_closed()
            case "consumerEffectiveProfileChanged":
                self._recorder.current.counts[what] += 1
            case _:
                self._wrong("unlike", f"told {what} {str(data)[:200]}, which nothing here leads to")

    def _add_consumer(self, data: Any) -> None:
        about = data["appData"]
        if data["id"] in self.consumers:
            self._wrong("duplicated", f"newConsumer {data['id']}, which is there")
        if self.peers.get(data["peerName"]) != about["life"]:
            self._wrong("unlike", f"newConsumer {data['id']} of {data['peerName']}, who is not there")
        self.consumers[data["id"]] = Consumer(data["peerName"], about["life"], about["n"], data["kind"])

    def _peer_closed(self, data: Any, now: float) -> None:
        name = data["name"]
        life = self.peers.pop(name, None)
        if life is None:
            self._wrong("unlike", f"peerClosed {name}, who is not there")
            return
        if isinstance(about := data.get("appData"), dict):
            self._recorder.current.told("peerClosed", now - about["t"])
        source = self._room.life(name, life)
        for id_ in [id_ for id_, it in self.consumers.items() if it.source == name]:
            self._stop_listening(id_, exact=source.leave != END)
        self.saw(Key(name, life, source.leave), "leave")

    def _consumer_closed(self, id_: int) -> None:
        consumer = self.consumers.get(id_)
        if consumer is None:
            self._wrong("unlike", f"consumerClosed {id_}, which is not there")
            return
        n = self._room.life(consumer.source, consumer.life).closes.get(consumer.n)
        self._stop_listening(id_, exact=n is not None)
        if n is None:
            self._wrong("unlike", f"consumerClosed {id_} of {consumer.source}, who did not close it")
        else:
            self.saw(Key(consumer.source, consumer.life, n), "close", consumer.n)

    def _stop_listening(self, id_: int, *, exact: bool) -> None:
        """`exact`: the producer's peer closed it, so all that it had asked for before is done."""
        if (listener := self.consumers.pop(id_).listener) is not None:
            turns = listener.turns
            listener.leave(turns.asked if exact else turns.answered, turns.asked, self._recorder.wrong)

    def saw(self, key: Key, kind: Kind, about: int = 0) -> None:
        """What happened for all to see: told by another, or done by itself and answered."""
        self._room.log.saw(self.member, key, kind, about)

    def _wrong(self, kind: str, text: str) -> None:
        self._recorder.wrong(kind, f"{self._room.name}/{self.name}: {text}")
