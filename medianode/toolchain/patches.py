"""Changes to mediasoup's source, each with the reason why it is needed."""

from dataclasses import dataclass
from pathlib import Path

from medianode.toolchain.errors import EngineUnavailable


@dataclass(frozen=True)
class Patch:
    """A replacement of `old` by `new` in one file, whose path is relative to mediasoup's folder `worker`."""

    name: str
    file: str
    old: str
    new: str
    reason: str

    def apply(self, worker: Path) -> None:
        """Changes the file. Raises `EngineUnavailable` if `old` is not there exactly once."""
        path = worker / self.file
        try:
            source = path.read_text(encoding="utf-8")
        except OSError as error:
            raise self._refused(str(error)) from error
        found = source.count(self.old)
        if found != 1:
            raise self._refused(f"the text to replace is there {found} times")
        path.write_text(source.replace(self.old, self.new), encoding="utf-8")

    def _refused(self, why: str) -> EngineUnavailable:
        return EngineUnavailable(f"the patch '{self.name}' does not fit {self.file} of the engine's source: {why}")


PATCHES = (
    Patch(
        name="DTLS with kernel TLS",
        file="src/RTC/DtlsTransport.cpp",
        old="(operationType == BIO_CB_RETURN) ? static_cast<long>(ret) : 1",
        new="((operationType & BIO_CB_RETURN) != 0) ? static_cast<long>(ret) : 1",
        reason=(
            "The callback of the BIO that DTLS writes to answers 1 to each control call, also to the question if "
            "the kernel encrypts. An OpenSSL with kernel TLS, such as Debian's, then allocates no write buffer, and "
            "the engine crashes at its first DTLS handshake."
        ),
    ),
    Patch(
        name="second stream of an encoding",
        file="src/RTC/Producer.cpp",
        old="if (isMediaPacket && encoding.ssrc == ssrc)",
        new="if (isMediaPacket && encoding.ssrc && encoding.ssrc == ssrc && !this->rtpStreamByEncodingIdx[i])",
        reason=(
            "An encoding is looked up by SSRC before RID. It may have a stream already that was found by its RID, "
            "under another SSRC. Creating a second stream fails an assertion, so that two packets of one client end "
            "the engine with every room on it. An encoding without an SSRC has 0 there, which a client may send."
        ),
    ),
)
