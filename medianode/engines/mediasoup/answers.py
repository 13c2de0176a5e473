"""Makes results of `shared.protocol.media` from the engine's answers."""

from collections.abc import Callable
from typing import Any

import msgspec

from medianode.engines.mediasoup.channel import Response
from medianode.engines.mediasoup.process import BUSY, NO_ANSWER, TOO_LONG, UNFIT, Answered
from medianode.engines.port import Done
from shared.errors import cut
from shared.protocol import media
from shared.protocol.media import Failed

_CODES = {NO_ANSWER: 503, BUSY: 503, TOO_LONG: 413, UNFIT: 400, "TypeError": 400, "NotFoundError": 404}


def failed(answer: Response) -> Failed:
    """Returns the failure that an answer means. Conflicts differ from other errors of the engine in their text.

    The engine's text may contain a client's, such as a muxId.
    """
    code = _CODES.get(answer.error) or (409 if "already" in answer.reason else 500)
    return Failed(code, cut(answer.reason))


def result_callback(done: Done, result: Callable[[Any], media.AnyResult]) -> Answered:
    """Returns a callback that passes `result` of the answer's data to `done`, or the failure."""

    def answered(answer: Response) -> None:
        if answer.error:
            done(failed(answer))
            return
        try:
            value = result(answer.data)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            done(Failed(500, f"the engine's answer was not understood: {cut(repr(error))}"))
        else:
            done(value)

    return answered
