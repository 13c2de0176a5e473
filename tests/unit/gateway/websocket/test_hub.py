"""Sessions of new connections."""

from gateway.bus.partition_publisher import InputPublisher
from gateway.counters import Counters
from gateway.protocol.handshake import ConnectionRequest
from gateway.websocket.hub import Hub
from shared.protocol.bus import Connect, decode_item
from shared.settings import GatewaySettings


def hub() -> Hub:
    counters = Counters()
    return Hub(GatewaySettings(), "gw-1", InputPublisher(None, "gw-1", 4, counters), counters)  # type: ignore[arg-type]


async def test_each_resumable_session_has_its_own_secret_and_number() -> None:
    made = hub()
    tokens, numbers = set(), set()
    for _ in range(100):
        session = made.new_resumable_session(ConnectionRequest("room", "peer", resumable=True))
        session.connect("peer", 1000)
        item = decode_item(session.take() or b"")
        assert isinstance(item, Connect)
        tokens.add(item.token)
        numbers.add(item.connection)
    assert len(tokens) == len(numbers) == 100
