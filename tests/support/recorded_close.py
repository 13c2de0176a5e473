"""Connects to a gateway without a client, to see with which code it closes the connection."""

import asyncio

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class RecordedClose(WSListener):
    """A connection that is only read; `code` has the close code once the gateway has sent it."""

    def __init__(self) -> None:
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_ws_frame(self, _: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE and not self.code.done():
            self.code.set_result(int(frame.get_close_code()))  # type: ignore[call-overload]


async def recorded_close(url: str, query: str) -> RecordedClose:
    """Opens a connection to the gateway at `url` (http://…) with this query."""
    listener = RecordedClose()
    await ws_connect(lambda: listener, f"{url.replace('http', 'ws', 1)}/ws?{query}")
    return listener
