"""The logger of aiohttp's servers, which log each malformed request as an error; here only defects of ours are."""

import logging
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError


class _WithoutMistakesOfClients(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raised = record.exc_info[1] if record.exc_info else None
        return not isinstance(raised, HttpProcessingError | ConnectionError)


SERVER_LOGGER: Final = logging.getLogger("aiohttp.server.plenary")
SERVER_LOGGER.addFilter(_WithoutMistakesOfClients())
