// The way to the server: protoo over WebSocket, carrying mediasoup messages (DESIGN: client contract).

import { Peer } from 'protoo-client';

import { ResumableTransport } from './resumable-transport.js';

const REQUEST = 'mediasoup-request';
const NOTIFICATION = 'mediasoup-notification';

const RETRY = { retries: 20, factor: 2, minTimeout: 500, maxTimeout: 8000 };

/**
 * Events: `open` (a new session: join), `down` {attempt} (lost or not reached; it tries again by itself),
 * `end` {code, reason} (it will not come back), `message` {message} (a mediasoup notification),
 * `refused` {code, reason} (the server could not use something that we sent), `resuming` and `resumed` (the session
 * goes on over another connection; nothing is lost, so there is nothing to do).
 */
export class Signaling extends EventTarget {
  #peer;

  constructor(url) {
    super();
    const transport = new ResumableTransport(url, { retry: RETRY });
    transport.on('resuming', () => this.#emit('resuming'));
    transport.on('resumed', () => this.#emit('resumed'));
    transport.on('close', (closing) => this.#emit('end', closing));
    this.#peer = new Peer(transport);
    this.#peer.on('open', () => this.#emit('open'));
    this.#peer.on('disconnected', () => this.#emit('down', { attempt: 0 }));
    this.#peer.on('failed', (attempt) => this.#emit('down', { attempt }));
    this.#peer.on('notification', ({ method, data }) => this.#notified(method, data));
    this.#peer.on('request', (_request, _accept, reject) => reject(404, 'unknown method'));
  }

  request(message) {
    return this.#peer.request(REQUEST, message);
  }

  /** Never rejects: what a closed socket did not take, the server learns from the closing itself. */
  notify(message) {
    this.#peer.notify(NOTIFICATION, message).catch(() => {});
  }

  close() {
    this.#peer.close();
  }

  #notified(method, data) {
    if (method === NOTIFICATION) this.#emit('message', { message: data });
    else if (method === 'error') this.#emit('refused', { code: data.errorCode, reason: data.errorReason });
  }

  #emit(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export function signalingUrl({ room, peer, token }) {
  const url = new URL('ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  url.hash = '';
  url.search = new URLSearchParams({ roomId: room, peerName: peer, ...(token && { token }) });
  return url.href;
}
