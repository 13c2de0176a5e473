"""Asks media nodes for the stats that a room's objects report."""

from collections.abc import Callable

from roomworker.core import stats
from roomworker.core.model import Reporter
from roomworker.core.room import Room
from shared.protocol import media


class StatsRequests:
    """The requests for stats of one room in memory; `ask` sends one to a media node."""

    def __init__(
        self, room: Room, ask: Callable[[str, media.AnyRequest, Callable[[media.AnyResult], None]], None]
    ) -> None:
        self._room = room
        self._ask = ask
        self._stopped = False

    def request_first(self) -> None:
        """Requests the stats that were just enabled: the first report comes at once."""
        wanted, self._room.first_stats_wanted = self._room.first_stats_wanted, []
        for reporter in wanted:
            self._request(reporter)

    def request_due(self, now: int) -> None:
        """Requests the stats that are due at `now`, ms of the room's time."""
        for reporter in stats.take_due(self._room, now):
            self._request(reporter)

    def stop(self) -> None:
        """Ignores the results from now on: the room in memory is given up."""
        self._stopped = True

    def _request(self, reporter: Reporter) -> None:
        request, placement = stats.request(self._room, reporter), self._room.meta.placement
        if request is None or placement is None:
            return

        def on_result(result: media.AnyResult) -> None:
            if not self._stopped and isinstance(result, media.Stats):
                stats.report(self._room, reporter, request.object, result)

        self._ask(placement.node, request, on_result)
