// window.plenary: what the page is doing, for tests and for curious people. Read-only; described in web/README.md.

import { nameOf } from './call.js';

export function expose(call) {
  Object.defineProperty(window, 'plenary', { value: Object.freeze({
    get state() { return call.state; },
    get problem() { return call.problem; },
    get room() { return call.room; },
    get peerName() { return call.peerName; },
    get resuming() { return call.resuming; },
    get resumed() { return call.resumed; },
    get call() { return describe(call); },
    stats: () => stats(call),
  }) });
}

function describe(call) {
  const { session, media } = call;
  return {
    peers: call.peers.map((peer) => ({
      name: peer.name, displayName: nameOf(peer), consumers: peer.consumers.map(describeConsumer),
    })),
    producers: (session?.sending?.producers ?? []).map(describeProducer),
    transports: transportsOf(call).map(({ id, direction, connectionState }) => ({ id, direction, connectionState })),
    problems: [call.problem, session?.sending?.problem, session?.receiving?.problem, media.problem].filter(Boolean),
  };
}

function describeConsumer(consumer) {
  return {
    id: consumer.id, kind: consumer.kind, supported: consumer.supported, closed: consumer.closed,
    paused: consumer.paused, locallyPaused: consumer.locallyPaused, remotelyPaused: consumer.remotelyPaused,
    profile: consumer.preferredProfile, effectiveProfile: consumer.effectiveProfile,
    receiving: Boolean(consumer.track), appData: consumer.appData,
  };
}

function describeProducer(producer) {
  return {
    id: producer.id, kind: producer.kind, paused: producer.paused,
    locallyPaused: producer.locallyPaused, remotelyPaused: producer.remotelyPaused,
    simulcast: Boolean(producer.simulcast), sending: Boolean(producer.transport), rtpParameters: producer.rtpParameters,
  };
}

function transportsOf({ session }) {
  return [session?.sending?.transport, session?.receiving?.transport].filter(Boolean);
}

async function stats(call) {
  const [send, recv] = await Promise.all(['send', 'recv'].map(async (direction) => {
    const transport = transportsOf(call).find((candidate) => candidate.direction === direction);
    return transport ? { transport, reports: [...(await transport.handler._pc.getStats()).values()] } : null;
  }));
  return {
    send: send && { ...connection(send), streams: streams(send, 'outbound-rtp') },
    recv: recv && { ...connection(recv), consumers: consumers(call, recv), streams: streams(recv, 'inbound-rtp') },
  };
}

function connection({ transport, reports }) {
  const { iceConnectionState, connectionState } = transport.handler._pc;
  const pair = reports.find(({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded');
  return { iceConnectionState, connectionState, roundTripSeconds: pair?.currentRoundTripTime ?? null };
}

function streams({ reports }, type) {
  return reports.filter((report) => report.type === type).map((report) => ({ ...report }));
}

/** The inbound streams by the consumer that they belong to. */
function consumers(call, { reports }) {
  const bySsrc = new Map(reports.filter(({ type }) => type === 'inbound-rtp').map((report) => [report.ssrc, report]));
  return call.peers.flatMap((peer) => peer.consumers.map((consumer) => {
    const report = bySsrc.get(consumer.rtpParameters.encodings[0].ssrc) ?? {};
    return {
      peerName: peer.name, id: consumer.id, kind: consumer.kind,
      packetsReceived: report.packetsReceived ?? 0, bytesReceived: report.bytesReceived ?? 0,
      framesDecoded: report.framesDecoded ?? 0, frameWidth: report.frameWidth ?? 0, frameHeight: report.frameHeight ?? 0,
      audioLevel: report.audioLevel ?? 0, totalAudioEnergy: report.totalAudioEnergy ?? 0,
    };
  }));
}
