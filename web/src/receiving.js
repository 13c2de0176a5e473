// The consumers: receives everything this browser can play, through lost transports and refusals, and keeps
// what the user chose for each person (pause, profile) across them.

import { Patience, watchTransport } from './transports.js';
import { isTemporary, serverWords } from './words.js';

const TRIES = 3;

export class Receiving {
  /** Why something is not received, in words; empty if all is well. */
  problem = '';
  #room;
  #choices;
  #changed;
  #transport = null;
  #pending = new Set();
  #failures = new WeakMap();
  #patience = new Patience();
  #waiting = false;
  #closed = false;

  /** `choices` outlives the room: {peer name: {audio, video: paused by me, profile}}. */
  constructor(room, choices, changed) {
    this.#room = room;
    this.#choices = choices;
    this.#changed = changed;
  }

  get transport() {
    return this.#transport;
  }

  add(consumer) {
    for (const event of ['pause', 'resume', 'effectiveprofilechange', 'handled', 'unhandled', 'close']) {
      consumer.on(event, this.#changed);
    }
    const choice = this.#choice(consumer);
    if (choice[consumer.kind]) consumer.pause();
    if (choice.profile && consumer.kind === 'video') consumer.setPreferredProfile(choice.profile);
    void this.#receive(consumer);
    this.#changed();
  }

  setPaused(consumer, paused) {
    this.#choice(consumer)[consumer.kind] = paused;
    if (paused) consumer.pause();
    else consumer.resume();
    this.#changed();
  }

  setProfile(consumer, profile) {
    this.#choice(consumer).profile = profile;
    consumer.setPreferredProfile(profile);
    this.#changed();
  }

  /** The server closed transport `id`. Returns whether it was ours. */
  transportClosed(id) {
    if (this.#transport?.id !== id) return false;
    this.#replaceTransport();
    return true;
  }

  close() {
    this.#closed = true;
    this.#patience.stop();
  }

  async #receive(consumer) {
    // While one is pending, its end decides whether it has to be received once more.
    if (this.#closed || this.#waiting || this.#pending.has(consumer)) return;
    if (consumer.closed || !consumer.supported) return;
    const transport = this.#openTransport();
    if (consumer.transport === transport) return;
    this.#pending.add(consumer);
    let failure = null;
    try {
      await consumer.receive(transport);
    } catch (error) {
      failure = error;
    }
    this.#pending.delete(consumer);
    if (this.#closed || consumer.closed) return;
    if (transport !== this.#transport) {
      // It is being replaced: unless that waits for its turn, go on with the new one.
      if (!this.#waiting) void this.#receive(consumer);
      return;
    }
    if (failure) return this.#failed(consumer, failure);
    this.#patience.reset();
    this.problem = '';
    this.#changed();
  }

  #openTransport() {
    if (this.#transport) return this.#transport;
    const transport = this.#room.createTransport('recv');
    this.#transport = transport;
    watchTransport(transport, {
      changed: this.#changed,
      lost: () => transport === this.#transport && this.#replaceTransport(),
    });
    return transport;
  }

  #replaceTransport() {
    const transport = this.#transport;
    this.#transport = null;
    transport?.close();
    if (!this.#waiting) this.#receiveAll();
  }

  #receiveAll() {
    for (const peer of this.#room.peers) for (const consumer of peer.consumers) void this.#receive(consumer);
    this.#changed();
  }

  // The library cannot receive a consumer twice over one transport, so trying again costs the whole transport:
  // too much for one that fails again and again.
  async #failed(consumer, error) {
    const failures = (this.#failures.get(consumer) ?? 0) + 1;
    this.#failures.set(consumer, failures);
    const again = isTemporary(error) || failures < TRIES;
    this.problem = `You can't see or hear everybody. ${serverWords(error)}${again ? ' Trying again…' : ''}`;
    this.#changed();
    if (!again) return;
    this.#waiting = true;
    this.#replaceTransport();
    await this.#patience.wait();
    this.#waiting = false;
    if (!this.#closed) this.#receiveAll();
  }

  #choice(consumer) {
    const { name } = consumer.peer;
    if (!this.#choices.has(name)) this.#choices.set(name, {});
    return this.#choices.get(name);
  }
}
