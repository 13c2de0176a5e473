// Sending video in three sizes, and what today's browsers need for it.

import { getDeviceInfo } from 'mediasoup-client';

const BITRATES = { low: 100_000, medium: 300_000, high: 1_500_000 };
const ORDER = ['low', 'medium', 'high'];
const START_KBPS = 1500;
const LADDER_CODECS = new Set(['vp8', 'h264']);

/** Options for `createProducer`: simulcast where the picture is large enough and the room's codec allows it. */
export function videoOptions(track, roomCapabilities) {
  const { width = 0, height = 0 } = track.getSettings();
  const first = roomCapabilities.codecs.find(({ kind }) => kind === 'video');
  const large = Math.max(width, height) >= 960 && Math.min(width, height) >= 540;
  return large && LADDER_CODECS.has(first?.name.toLowerCase()) ? { simulcast: BITRATES } : {};
}

/**
 * The library asks for three streams, but a modern Chromium then sends all of them in full size.
 * To be called after each `producer.send()`.
 */
export async function scaleLayers(producer) {
  if (!producer.simulcast) return;
  const sender = producer.transport.handler._pc.getSenders().find(({ track }) => track === producer.track);
  const parameters = sender.getParameters();
  const { encodings } = parameters;
  if (encodings.length < 2) return;
  encodings.forEach((encoding, index) => {
    // Firefox names its streams (high0, medium0, low0); elsewhere they come in the order of the profiles.
    const profile = encoding.rid?.match(/^[a-z]+/)?.[0] ?? ORDER[index];
    encoding.scaleResolutionDownBy = 2 ** (ORDER.length - 1 - ORDER.indexOf(profile));
    encoding.maxBitrate = BITRATES[profile];
  });
  await sender.setParameters(parameters);
}

/**
 * To be called right after `createTransport('send')`: with an audio section in front, Chromium gets the same
 * header extension ids whichever kind is sent first. Without it, "video first" throws on some rooms.
 */
export function prepareSending(transport) {
  if (getDeviceInfo().flag !== 'chrome') return;
  transport.handler._pc.addTransceiver('audio', { direction: 'inactive' });
}

/**
 * The room's capabilities with a hint for Chromium, to be given to the library. Without it a sender starts at
 * 300 kbit/s and, lacking transport-wide-cc, was seen to need more than 15 s until the largest of three layers
 * came on; with it, 1 s.
 */
export function withFastStart(capabilities) {
  const codecs = capabilities.codecs.map((codec) => (codec.kind !== 'video' || codec.name === 'rtx' ? codec : {
    ...codec, parameters: { 'x-google-start-bitrate': START_KBPS, ...codec.parameters },
  }));
  return { ...capabilities, codecs };
}
