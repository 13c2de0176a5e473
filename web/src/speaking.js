// Who is speaking: from the audio levels that come with the received packets, no server needed.

import { isScreen } from './places.js';

const INTERVAL_MS = 200;
const LOUD = 0.02;
const HOLD_MS = 600;

/** Calls `show(Map of peer name → true)` a few times a second while the call has people in it. Never stops. */
export function watchSpeaking(call, show) {
  const lastLoud = new Map();
  setInterval(() => {
    const receivers = call.session?.receiving?.transport?.handler._pc.getReceivers() ?? [];
    const levels = new Map(receivers.map((receiver) => [receiver.track, levelOf(receiver)]));
    const now = performance.now();
    const speaking = new Map();
    for (const { name, consumers } of call.peers) {
      const audio = consumers.find((consumer) => consumer.kind === 'audio' && !consumer.paused && !isScreen(consumer));
      if (audio && levels.get(audio.track) > LOUD) lastLoud.set(name, now);
      if (audio && now - (lastLoud.get(name) ?? -Infinity) < HOLD_MS) speaking.set(name, true);
    }
    show(speaking);
  }, INTERVAL_MS);
}

function levelOf(receiver) {
  if (receiver.track.kind !== 'audio') return 0;
  return receiver.getSynchronizationSources()[0]?.audioLevel ?? 0;
}
