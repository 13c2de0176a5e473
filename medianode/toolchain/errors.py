"""The one error of the toolchain."""


class EngineUnavailable(Exception):
    """There is no engine binary and none can be built; `reason` says why and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
