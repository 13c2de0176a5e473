"""The base of virtual peers: connects, joins, sends messages, leaves, and checks notifications by its view.

The load generator's peers and the fault driver's participants are of this kind; they differ in what they do next and
in what they know of media.
"""

import asyncio
import random
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from loadtest.client.ledger import Overflow
from loadtest.client.protoo import Ended, Hooks, ProtooClient, Refusal
from loadtest.generator.requester import NOT_FOUND, OnAnswer, Requester
from loadtest.model.event_order import Key, Member
from loadtest.model.recorder import Recorder
from loadtest.model.room import Life, Room
from loadtest.model.room_view import RoomView
from shared.protocol.client import MESSAGE, NOTIFICATION, REQUEST

CLOSE_SECONDS: Final = 60.0
"""Seconds within which the server closes a connection that a peer has ended."""
PADDING: Final = "x" * 4096


class Participant(Requester):
    """A peer that joins and leaves one room. `urls` are gateways."""

    def __init__(self, room: Room, name: str, urls: Sequence[str], recorder: Recorder, chance: random.Random) -> None:
        super().__init__(f"{room.name}/{name}", recorder)
        self.room = room
        self.name = name
        self._urls = urls
        self._chance = chance
        self.life = 0
        self._n = 0
        self._ids = 1000
        self._capabilities: Any = None
        self._view: RoomView | None = None
        self._doing = Life()

    @property
    def joined(self) -> bool:
        return self._view is not None and self._view.joined

    @property
    def _here(self) -> RoomView:
        assert self._view is not None
        return self._view

    @abstractmethod
    def _new_view(self, member: Member) -> RoomView:
        """Returns the view of a life that begins."""

    def _forget(self) -> None:
        """Ends the life in the room; answers to what was asked in it no longer count."""
        self._view = None
        self._doing = Life()
        self._epoch += 1

    # --- its session ------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Opens a session. Raises `Ended`, OSError, WSError or TimeoutError."""
        start = self._chance.randrange(len(self._urls))
        urls = [*self._urls[start:], *self._urls[:start]]

        def notified(method: str, data: Any) -> None:
            self._notified(session, method, data)

        session = ProtooClient(
            *(urls[0], self.room.name, self.name),
            urls=urls,
            hooks=Hooks(
                notified=notified,
                resumed=lambda seconds: self._recorder.current.took("resume", seconds),
                violation=self._recorder.fail,
                failed=self._recorder.count_own_exception,
            ),
        )
        await session.open()
        self.session = session
        session.ended.add_done_callback(lambda ended: self._ended(session, ended.result()))

    def _notified(self, session: ProtooClient, method: str, data: Any) -> None:
        if session is not self.session:
            return  # it is being closed
        if self._view is not None:
            self._view.notified(method, data)
        else:
            self._fail("mismatch", f"was told {method} {str(data)[:200]} while it was in no room")

    async def _close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            self._check_numbers(session)
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await session.close()
            except TimeoutError:
                self._fail("sessions", "the server did not answer the end of the connection")
                await session.abort()

    async def _discard_session(self, why: BaseException) -> None:
        """Drops the session without counting a failure: the caller does that."""
        self._abandon_life()
        if isinstance(why, Refusal):
            await self._close()
        elif (session := self.session) is not None:
            self.session = None
            self._check_numbers(session)
            await session.abort()

    def _ended(self, session: ProtooClient, why: Ended) -> None:
        if self.session is not session:
            return
        self.session = None
        self._check_numbers(session)
        self._fail("sessions", f"ended with {why}")
        self._fail_calls(why)
        self._abandon_life()

    def _abandon_life(self) -> None:
        if self._view is not None:
            self._view.ended()
        self._forget()

    def _check_numbers(self, session: ProtooClient) -> None:
        """Counts gaps and duplicates in the session's numbers as failures."""
        ledger = session.ledger
        for kind, count in (("duplicated", ledger.duplicates), ("reordered", ledger.gaps)):
            if count:
                self._fail(kind, f"{count} of the session's numbers were {kind}")

    # --- its room ---------------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        """Joins the room in a new life. Raises `Refusal`, `Ended` or `Overflow`; the life is over then."""
        if self._capabilities is None:
            self._capabilities = (await self._call(REQUEST, "queryRoom"))["rtpCapabilities"]
        now = time.monotonic()
        self.life += 1
        self._n = 0
        member = Member(self.name, self.life)
        self._view = view = self._new_view(member)
        self._doing = self.room.live(self.name, self.life)
        self.room.log.joining(member)
        try:
            await self._call(
                *(REQUEST, "join", lambda answer: view.record_join(answer["peers"])),
                peerName=self.name,
                rtpCapabilities=self._capabilities,
                appData={"life": self.life, "t": now},
            )
        except (Refusal, Overflow):
            self._abandon_life()
            raise

    async def _leave(self, due: float, left: Callable[[], None]) -> None:
        """Leaves the room. `left` is called when the leave is answered, before the view ends."""
        view, key = self._here, self._key()
        self._doing.leave = key.n

        def answered(_: Any) -> None:
            left()
            view.record_leave(key)
            self._forget()

        await self._call(NOTIFICATION, "leave", answered, due=due, appData={"t": due})

    def _say(self, due: float, to_one: float, padding: int = 0) -> None:
        """Sends a message: to one peer, with the probability `to_one`, else to all."""
        view, pad = self._here, PADDING[:padding]
        if view.peers and self._chance.random() < to_one:
            to = self._chance.choice(list(view.peers))
            life = view.peers[to]
            n = self.room.direct.next_number(self.name, to)
            self._post(
                *(MESSAGE, "message", due, {"to": to, "data": {"one": n, "t": due, "pad": pad}}),
                lambda _: self.room.direct.accepted(self.name, to, n),
                is_expected=lambda refusal: refusal.code == NOT_FOUND and view.peers.get(to) != life,
            )
        else:
            key = self._key()
            data = {"data": {"life": key.life, "n": key.n, "t": due, "pad": pad}}
            self._post(MESSAGE, "message", due, data, self._message_answered(key))

    def _message_answered(self, key: Key) -> OnAnswer:
        """Returns a callback that records a message to all as sent, when it is answered."""
        view = self._here
        return lambda _: view.observe(key, "message")

    async def barrier(self) -> None:
        """Returns when all notifications of earlier events have arrived; raises as `_call`."""
        if self.session is not None:
            await self._call(REQUEST, "queryRoom")

    # --- small things -----------------------------------------------------------------------------------------------

    def _key(self) -> Key:
        self._n += 1
        return Key(self.name, self.life, self._n)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids
