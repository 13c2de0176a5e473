"""Changes to mediasoup's source, each with the reason why it is needed."""

import hashlib
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

    @property
    def label(self) -> str:
        """The name, and a digest of what the patch does."""
        digest = hashlib.sha256("\0".join((self.file, self.old, self.new)).encode()).hexdigest()
        return f"{self.name} ({digest[:12]})"

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
            "the kernel encrypts. An OpenSSL with kernel TLS, such as Debian's, then allocates no write buffer, "
            "and the engine crashes at its first DTLS handshake."
        ),
    ),
    Patch(
        name="second stream of an encoding",
        file="src/RTC/Producer.cpp",
        old="if (isMediaPacket && encoding.ssrc == ssrc)",
        new="if (isMediaPacket && encoding.ssrc && encoding.ssrc == ssrc && !this->rtpStreamByEncodingIdx[i])",
        reason=(
            "An encoding is looked up by SSRC before RID. It may have a stream already that was found by its RID, "
            "under another SSRC. Creating a second stream fails an assertion, so that two packets of one client "
            "end the engine with every room on it. An encoding without an SSRC has 0 there, which a client may "
            "send."
        ),
    ),
    Patch(
        name="header extension without a value",
        file="src/RTC/RTP/Packet.cpp",
        old="highestLen = std::max(extension.len, highestLen);",
        new="highestLen = std::max<uint8_t>(extension.len == 0 ? 255 : extension.len, highestLen);",
        reason=(
            "A header extension with two-byte headers may be 0 bytes long. If a producer's packet has such a one "
            "among the extensions that are forwarded, they are rewritten with one-byte headers, which cannot say "
            "0: an exception that nothing catches ends the engine. With this change they keep their two-byte "
            "headers."
        ),
    ),
    Patch(
        name="packets without room to grow",
        file="src/RTC/RTP/Packet.cpp",
        old="if (!Packet::IsRtp(buffer, packetLength))",
        new="if (packetLength > bufferLength / 2 || !Packet::IsRtp(buffer, packetLength))",
        reason=(
            "Forwarding a packet rewrites its header extensions, which may make it longer. A packet that then "
            "does not fit its buffer of 64 KiB, or whose old extensions are longer than 32 KiB, ends the engine "
            "by an exception that nothing catches. No RTP packet of a client is longer than a few KiB."
        ),
    ),
    Patch(
        name="congestion feedback about too many packets",
        file="src/RTC/RTCP/FeedbackRtpTransport.cpp",
        old="uint16_t count{ 0u };\n\t\t\tuint16_t receivedPacketStatusCount{ 0u };",
        new="size_t count{ 0u };\n\t\t\tsize_t receivedPacketStatusCount{ 0u };",
        reason=(
            "The counts of a transport-wide feedback wrap at 65,536, so that feedback which is inconsistent "
            "passes as consistent. An RTCP packet of 60 bytes makes the engine read behind its list of deltas, "
            "and end by an exception that nothing catches; a long one makes it list 268 million packets, which "
            "takes 4 GB of memory and 15 s."
        ),
    ),
    Patch(
        name="capture time by the first sender report",
        file="src/RTC/Transport.cpp",
        old="\t\t\tremoteCaptureTimeEstimator.SenderReportReceived(rtpStream);\n\t\t}\n",
        new="""\
\t\t\tremoteCaptureTimeEstimator.SenderReportReceived(rtpStream);

\t\t\tif (const auto report = rtpStream->GetSenderReportMapping(); report.has_value())
\t\t\t{
\t\t\t\tconst auto capturedAtUs = remoteCaptureTimeEstimator.GetLocalCaptureAtUs(rtpStream, report->ts);

\t\t\t\tif (capturedAtUs.has_value())
\t\t\t\t{
\t\t\t\t\trtpStream->SetCaptureMapping(capturedAtUs.value(), report->ts);
\t\t\t\t}
\t\t\t}
\t\t}
""",
        reason=(
            "A consumer switches to another layer when the capture times of both are known. A stream's capture time "
            "is derived at its first packet after a sender report, while consumers choose layers when the report "
            "arrives, and not again. A stream that appears later than the others, as after updateProducer, is "
            "therefore not shown before the old one counts as dead, 5 s later; one that ends before its report has "
            "no capture time at all, and the timestamps that receivers see jump. With this change the report is "
            "enough."
        ),
    ),
    Patch(
        name="clock offset by the first sender report",
        file="include/RTC/RemoteClockOffsetEstimator.hpp",
        old="static constexpr size_t MinSampleCount{ 3 };",
        new="static constexpr size_t MinSampleCount{ 1 };",
        reason=(
            "No capture time is known before three sender reports have arrived, 3 s after the first packet, so that "
            "simulcast layers stay as they began. One report suffices to compare streams of one sender, as in "
            "mediasoup 3.12; the estimate improves with the next ones."
        ),
    ),
    Patch(
        name="TCP connections without ICE",
        file="include/RTC/TcpConnection.hpp",
        old="size_t frameStart{ 0 }; // Where the latest frame starts.\n\t};",
        new="""\
size_t frameStart{ 0 }; // Where the latest frame starts.

\t\t// Closes a connection that no transport has accepted in time, and the oldest
\t\t// of those that wait if there are too many.
\t\tclass Admission : public TimerHandleInterface::Listener
\t\t{
\t\tpublic:
\t\t\tAdmission(::TcpConnectionHandle* connection, SharedInterface* shared)
\t\t\t  : connection(connection), timer(shared->CreateTimer(this, "tcp-connection-admission"))
\t\t\t{
\t\t\t\tif (Waiting().size() >= MaxWaiting)
\t\t\t\t{
\t\t\t\t\tWaiting().front()->connection->TriggerClose();
\t\t\t\t}

\t\t\t\tthis->place = Waiting().insert(Waiting().end(), this);
\t\t\t\tthis->timer->Start(TimeoutMs);
\t\t\t}

\t\t\t~Admission() override
\t\t\t{
\t\t\t\tGrant();
\t\t\t}

\t\t\tvoid Grant()
\t\t\t{
\t\t\t\tif (this->timer)
\t\t\t\t{
\t\t\t\t\tWaiting().erase(this->place);
\t\t\t\t\tdelete this->timer;
\t\t\t\t\tthis->timer = nullptr;
\t\t\t\t}
\t\t\t}

\t\t\tvoid OnTimer(TimerHandleInterface* /*timer*/) override
\t\t\t{
\t\t\t\t// This deletes the connection, and the admission with it.
\t\t\t\tthis->connection->TriggerClose();
\t\t\t}

\t\tprivate:
\t\t\tstatic constexpr int64_t TimeoutMs{ 15000 };
\t\t\tstatic constexpr size_t MaxWaiting{ 500 };

\t\t\tstatic std::list<Admission*>& Waiting()
\t\t\t{
\t\t\t\tstatic thread_local std::list<Admission*> waiting;

\t\t\t\treturn waiting;
\t\t\t}

\t\t\t::TcpConnectionHandle* connection{ nullptr };
\t\t\tTimerHandleInterface* timer{ nullptr };
\t\t\tstd::list<Admission*>::iterator place;
\t\t};

\t\tAdmission admission{ this, this->shared };

\tpublic:
\t\tvoid Admit()
\t\t{
\t\t\tthis->admission.Grant();
\t\t}
\t};""",
        reason=(
            "A TCP connection to the media port stays until the other side closes it, with a buffer of 64 KiB once "
            "it has sent a byte, whether or not a transport ever accepts it: anybody may open thousands. With this "
            "change a connection that has not passed ICE within 15 s is closed, and the oldest of those that wait "
            "when there are 500."
        ),
    ),
    Patch(
        name="list of TCP connections without ICE",
        file="include/RTC/TcpConnection.hpp",
        old='#include "SharedInterface.hpp"\n\nnamespace RTC',
        new='#include "SharedInterface.hpp"\n#include <list>\n\nnamespace RTC',
        reason="The list of connections that wait to be accepted by a transport needs its header.",
    ),
    Patch(
        name="TCP connections of tuples",
        file="include/RTC/TransportTuple.hpp",
        old="void CloseTcpConnection();\n\n\t\tflatbuffers::Offset",
        new="""\
void CloseTcpConnection();

\t\tvoid AdmitTcpConnection()
\t\t{
\t\t\tif (this->protocol == Protocol::TCP)
\t\t\t{
\t\t\t\tthis->tcpConnection->Admit();
\t\t\t}
\t\t}

\t\tflatbuffers::Offset""",
        reason="A tuple that passed ICE has to say so to its TCP connection, which is otherwise closed after 15 s.",
    ),
    Patch(
        name="TCP connections with ICE",
        file="src/RTC/WebRtcTransport.cpp",
        old="""\
::OnIceServerTupleAdded(
\t  const RTC::ICE::IceServer* /*iceServer*/, RTC::TransportTuple* tuple)
\t{
\t\tMS_TRACE();

\t\tif (""",
        new="""\
::OnIceServerTupleAdded(
\t  const RTC::ICE::IceServer* /*iceServer*/, RTC::TransportTuple* tuple)
\t{
\t\tMS_TRACE();

\t\ttuple->AdmitTcpConnection();

\t\tif (""",
        reason=(
            "The ICE server stores a tuple when a request with the transport's own user name and password has come "
            "from it. Its TCP connection then stays as long as the tuple, which the ICE server bounds."
        ),
    ),
)
