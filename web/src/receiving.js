// The consumers: receives everything this browser can play, through lost transports and refusals, and keeps
// what the user chose for each person (pause, profile) across them.

import { Patience, watchTransport } from './transports.js';
import { isScreen } from './places.js';
import { isTemporary, serverWords } from './words.js';

const TRIES = 3;

export class Receiving {
  /** Why something is not received, in words; empty if all is well. */
  problem = '';
  #room;
  #choices;
  #changed;
  #transport = null;
  #queue = Promise.resolve();
  #failures = new WeakMap();
  #patience = new Patience();
  #waiting = false;
  #closed = false;

  /** `choices` outlives the room: {peer and source: {audio, video: paused by me, profile}}. */
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
    this.#sync();
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

  // One by one: the library would send `createTransport` again for each consumer that waits behind a refused one.
  #sync() {
    this.#queue = this.#queue.then(async () => {
      for (const peer of this.#room.peers) for (const consumer of peer.consumers) await this.#receive(consumer);
    });
  }

  async #receive(consumer) {
    if (this.#closed || this.#waiting || consumer.closed || !consumer.supported || consumer.transport) return;
    const transport = this.#openTransport();
    try {
      await consumer.receive(transport);
      this.#patience.reset();
      this.problem = '';
    } catch (error) {
      // What fails because it is gone needs no other try: a replaced transport has its own.
      if (!this.#closed && !consumer.closed && transport === this.#transport) this.#failed(consumer, error);
    }
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
    this.#sync();
    this.#changed();
  }

  // The library cannot receive a consumer twice over one transport, so trying again costs the whole transport:
  // too much for one that fails again and again.
  #failed(consumer, error) {
    const failures = (this.#failures.get(consumer) ?? 0) + 1;
    this.#failures.set(consumer, failures);
    const again = isTemporary(error) || failures < TRIES;
    this.problem = `You can't see or hear everybody. ${serverWords(error)}${again ? ' Trying again…' : ''}`;
    if (!again) return;
    this.#waiting = true;
    this.#replaceTransport();
    void this.#patience.wait().then(() => {
      this.#waiting = false;
      this.#sync();
    });
  }

  #choice(consumer) {
    const key = JSON.stringify([consumer.peer.name, isScreen(consumer)]);
    if (!this.#choices.has(key)) this.#choices.set(key, {});
    return this.#choices.get(key);
  }
}
