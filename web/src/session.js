// One stay in the room: from a connection's `open` until it is lost or left. A reconnect is a new session.

import { Room } from 'mediasoup-client';

import { Receiving } from './receiving.js';
import { Sending } from './sending.js';
import { withFastStart } from './simulcast.js';

const REQUEST_TIMEOUT_MS = 15_000;

/** Events: `change`, `joined` {peer}, `left` {peer}, `closed` (by the server). */
export class Session extends EventTarget {
  sending = null;
  receiving = null;
  #signaling;
  #media;
  #choices;
  #capabilities = null;
  #room;

  constructor({ signaling, media, choices }) {
    super();
    this.#signaling = signaling;
    this.#media = media;
    this.#choices = choices;
    this.#room = new Room({ requestTimeout: REQUEST_TIMEOUT_MS, transportOptions: { preferUdp: true } });
    this.#room.on('request', (message, callback, errback) => this.#request(message, callback, errback));
    this.#room.on('notify', (message) => signaling.notify(message));
    this.#room.on('newpeer', (peer) => {
      this.#watch(peer);
      this.#emit('joined', { peer });
    });
    this.#room.on('close', (originator) => {
      if (originator === 'remote' && this.sending) this.#emit('closed');
    });
  }

  get peers() {
    return this.#room.peers;
  }

  get joined() {
    return this.#room.joined;
  }

  /** Rejects with the server's error (its `code` is one of the error table). */
  async join(peerName, displayName) {
    const peers = await this.#room.join(peerName, { displayName });
    this.sending = new Sending(this.#room, this.#media, this.#capabilities, this.#changed);
    this.receiving = new Receiving(this.#room, this.#choices, this.#changed);
    for (const peer of peers) this.#watch(peer);
    this.#media.addEventListener('change', this.#mediaChanged);
    this.sending.sync();
  }

  /** A mediasoup notification of the server. */
  receive(message) {
    // The library forgets a closed transport's state but keeps its dead connection: replace it ourselves.
    if (message.method === 'transportClosed') {
      if (!this.sending?.transportClosed(message.id)) this.receiving?.transportClosed(message.id);
      return;
    }
    void this.#room.receiveNotification(message).then(this.#changed);
  }

  /** Leaves the room, telling the server. */
  leave() {
    this.#stop();
    this.#room.leave();
  }

  /** The connection is lost: gives everything up without a word. */
  drop() {
    this.#stop();
    this.#room.remoteClose();
  }

  #stop() {
    this.#media.removeEventListener('change', this.#mediaChanged);
    this.sending?.close();
    this.receiving?.close();
    this.sending = null;
    this.receiving = null;
  }

  async #request(message, callback, errback) {
    try {
      const response = await this.#signaling.request(message);
      callback(message.method === 'queryRoom' ? this.#withRoom(response) : response);
    } catch (error) {
      errback(error);
    }
  }

  #withRoom(response) {
    this.#capabilities = withFastStart(response.rtpCapabilities);
    return { ...response, rtpCapabilities: this.#capabilities };
  }

  #watch(peer) {
    for (const consumer of peer.consumers) this.receiving.add(consumer);
    peer.on('newconsumer', (consumer) => this.receiving?.add(consumer));
    peer.on('close', () => {
      // Everybody "leaves" when the room itself is given up.
      if (this.receiving) this.#emit('left', { peer });
    });
  }

  #mediaChanged = () => this.sending?.sync();

  #changed = () => this.#emit('change');

  #emit(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
