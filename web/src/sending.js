// My producers: makes what is sent follow what `Media` has on, through lost transports and refusals.

import { prepareSending, scaleLayers, videoOptions } from './simulcast.js';
import { Patience, watchTransport } from './transports.js';
import { isTemporary, serverWords } from './words.js';

const TRIES = 4;
const KINDS = ['audio', 'video'];

export class Sending {
  /** Why something is not sent, in words; empty if all is well. */
  problem = '';
  #room;
  #media;
  #capabilities;
  #changed;
  #transport = null;
  #producers = new Map();
  #queue = Promise.resolve();
  #patience = new Patience();
  #generation = 0;
  #closed = false;

  /** `capabilities` are the room's; `changed()` is called whenever something visible did. */
  constructor(room, media, capabilities, changed) {
    this.#room = room;
    this.#media = media;
    this.#capabilities = capabilities;
    this.#changed = changed;
  }

  get transport() {
    return this.#transport;
  }

  get producers() {
    return [...this.#producers.values()];
  }

  producer(kind) {
    return this.#producers.get(kind) ?? null;
  }

  /** To be called after every change of the media: what is off stops now, what is on follows in turn. */
  sync() {
    for (const kind of KINDS) if (!this.#media.isOn(kind)) this.#pause(kind);
    this.#queue = this.#queue.then(() => this.#sync());
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

  async #sync() {
    if (this.#closed) return;
    const generation = this.#generation;
    try {
      for (const kind of KINDS) await this.#follow(kind);
      this.#patience.reset();
      this.problem = '';
    } catch (error) {
      // A transport replaced meanwhile takes its errors with it; the replacement syncs again by itself.
      if (!this.#closed && generation === this.#generation) this.#failed(error);
    }
    this.#changed();
  }

  async #follow(kind) {
    if (this.#closed || !this.#media.isOn(kind) || !this.#room.canSend(kind)) return;
    const track = this.#media.track(kind);
    const producer = this.#producers.get(kind);
    if (!producer) await this.#produce(kind, track);
    else if (producer.originalTrack !== track) await producer.replaceTrack(track);
    // The wish may have changed while we waited.
    if (this.#media.isOn(kind)) this.#producers.get(kind)?.resume();
    else this.#pause(kind);
  }

  async #produce(kind, track) {
    const options = kind === 'video' ? videoOptions(track, this.#capabilities) : {};
    const appData = { source: kind === 'video' ? 'camera' : 'microphone', simulcast: Boolean(options.simulcast) };
    const producer = this.#room.createProducer(track, options, appData);
    this.#producers.set(kind, producer);
    producer.on('pause', this.#changed);
    producer.on('resume', this.#changed);
    producer.on('close', (originator) => {
      if (originator === 'remote') this.#closedByServer(kind, producer);
    });
    await producer.send(this.#openTransport());
    // Without it the picture is only sent larger than necessary: no reason to fail.
    await scaleLayers(producer).catch((error) => console.warn('simulcast: %o', error));
  }

  #openTransport() {
    if (this.#transport) return this.#transport;
    const transport = this.#room.createTransport('send');
    this.#transport = transport;
    prepareSending(transport);
    watchTransport(transport, {
      changed: this.#changed,
      lost: () => transport === this.#transport && this.#replaceTransport(),
    });
    return transport;
  }

  #pause(kind) {
    const producer = this.#producers.get(kind);
    if (!producer) return;
    producer.pause();
    // The producer sends a clone, which keeps the camera's light on until it is stopped as well.
    if (!this.#media.track(kind)) producer.track.stop();
  }

  #closedByServer(kind, producer) {
    if (this.#closed || this.#producers.get(kind) !== producer) return;
    this.#producers.delete(kind);
    this.#media.refuse(kind, `The server stopped your ${kind === 'video' ? 'camera' : 'microphone'}.`);
  }

  #replaceTransport() {
    this.#drop();
    this.sync();
    this.#changed();
  }

  #drop() {
    const transport = this.#transport;
    const producers = this.producers;
    this.#generation += 1;
    this.#transport = null;
    this.#producers.clear();
    for (const producer of producers) producer.close();
    transport?.close();
  }

  #failed(error) {
    this.#drop();
    const again = isTemporary(error) || this.#patience.tries < TRIES;
    this.problem = `You can't be seen or heard yet. ${serverWords(error)}${again ? ' Trying again…' : ''}`;
    this.#changed();
    if (!again) return;
    void this.#patience.wait().then(() => this.sync());
  }
}
