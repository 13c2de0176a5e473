// The way to the server: protoo over WebSocket, carrying mediasoup messages (DESIGN: client contract).

import { Peer, WebSocketTransport } from 'protoo-client';

const REQUEST = 'mediasoup-request';
const NOTIFICATION = 'mediasoup-notification';

// Clients of a dead gateway come back all at once: the first try is immediate, the next ones are spread out.
const RETRY = { retries: 20, factor: 2, minTimeout: 500, maxTimeout: 8000, randomize: true };

/**
 * Events: `open` (connected: join), `down` {attempt} (lost or not reached; it tries again by itself),
 * `end` {code, reason} (it will not come back), `message` {message} (a mediasoup notification),
 * `refused` {code, reason} (the server could not use something that we sent).
 */
export class Signaling extends EventTarget {
  #transport;
  #peer;
  #closing = { code: 0, reason: '' };

  constructor(url) {
    super();
    this.#transport = new WebSocketTransport(url, { retry: RETRY });
    this.#peer = new Peer(this.#transport);
    this.#peer.on('open', () => {
      this.#watchClosing();
      this.#emit('open');
    });
    this.#peer.on('disconnected', () => this.#emit('down', { attempt: 0 }));
    this.#peer.on('failed', (attempt) => this.#emit('down', { attempt }));
    // The socket's own `close` listeners, where the code is noted, run after protoo's: so one task later.
    this.#peer.on('close', () => setTimeout(() => this.#emit('end', this.#closing)));
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

  // protoo tells that the server closed the connection for good, but not with which words.
  #watchClosing() {
    this.#transport._ws.addEventListener('close', ({ code, reason }) => {
      this.#closing = { code, reason };
    });
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
