"""The model of a room: what its peers have done, and what each must therefore be notified of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from loadtest.model.direct_messages import DirectMessages
from loadtest.model.event_order import END, EventOrder
from loadtest.model.pauses import PauseCounts

_LIVES_KEPT = 16


@dataclass
class Life:
    """The events of one life of a peer, by number."""

    leave: int = END
    closes: dict[int, int] = field(default_factory=dict)
    """The number of each producer's close, by producer."""
    turns: dict[int, PauseCounts] = field(default_factory=dict)
    """The pauses and resumes of each producer."""


class Room:
    def __init__(self, name: str, fail: Callable[[str, str], None]) -> None:
        self.name = name
        self.log = EventOrder(name, fail)
        self.direct = DirectMessages(name, fail)
        self._fail = fail
        self._lives: dict[str, dict[int, Life]] = {}

    def live(self, peer: str, life: int) -> Life:
        """Begins a new life of a peer; drops old ones."""
        lives = self._lives.setdefault(peer, {})
        lives[life] = Life()
        while len(lives) > _LIVES_KEPT:
            del lives[min(lives)]
        return lives[life]

    def life(self, peer: str, life: int) -> Life:
        """Returns a life of a peer, an empty one if it is unknown."""
        return self._lives.get(peer, {}).get(life) or Life()

    def check_complete(self) -> None:
        """Reports what never arrived. Call it when nothing can be on its way."""
        self.log.check_complete()
        self.direct.check_complete()

    def compare(self, listed: list[dict[str, Any]]) -> None:
        """Compares the peers that the server lists to a new peer (§join) with those of the log."""
        there = {peer["name"]: self._described(peer) for peer in listed}
        believed = {
            name: (life, {n: bool(self.life(name, life).turns[n].asked % 2) for n in open_})
            for name, (life, open_) in self.log.view().items()
        }
        for name in sorted(there.keys() | believed.keys()):
            if there.get(name) != believed.get(name):
                server, clients = (_words(view.get(name)) for view in (there, believed))
                self._fail("mismatch", f"{self.name}/{name}: the server has {server}, its clients know {clients}")

    def _described(self, peer: dict[str, Any]) -> tuple[int, dict[int, bool]]:
        return peer["appData"]["life"], {it["appData"]["n"]: it["paused"] for it in peer["consumers"]}


def _words(view: tuple[int, dict[int, bool]] | None) -> str:
    if view is None:
        return "nobody"
    life, producers = view
    states = (f"{n} {'paused' if paused else 'on'}" for n, paused in sorted(producers.items()))
    return f"life {life} with producers [{', '.join(states)}]"
