// A call: keeps me in the room through lost connections, until I leave or the server says to stay away.

import { plainText } from './plaintext.js';
import { Session } from './session.js';
import { Signaling, signalingUrl } from './signaling.js';
import { Patience } from './transports.js';
import { endOf, isTemporary, serverWords } from './words.js';

// After `closed` the server closes the socket and says why; if it does not, the call ends anyway.
const CLOSING_MS = 500;

/**
 * `state`: idle, connecting, joining, joined, reconnecting, left (by me), ended (by the server, see `problem`, `ending`).
 * Events: `change`, `announce` {name, text}: `text` is about the person or room `name`, which others chose.
 */
export class Call extends EventTarget {
  state = 'idle';
  /** Why we are not in the room, in words. */
  problem = '';
  /** How the call ended: one of `endOf`'s kinds, or empty while it has not. */
  ending = '';
  room = '';
  peerName = '';
  displayName = '';
  session = null;
  /** The connection is lost, and the call goes on without: what is said meanwhile is not lost. */
  resuming = false;
  /** How often that has happened. */
  resumed = 0;
  #media;
  #signaling = null;
  #choices = new Map();
  #patience = new Patience();
  #announced = false;
  #closing;

  constructor(media) {
    super();
    this.#media = media;
    media.addEventListener('change', this.#changed);
  }

  get active() {
    return ['connecting', 'joining', 'joined', 'reconnecting'].includes(this.state);
  }

  get media() {
    return this.#media;
  }

  get peers() {
    return this.session?.peers ?? [];
  }

  start({ room, peerName, displayName, token }) {
    this.#hangUp();
    Object.assign(this, { room, peerName, displayName, ending: '' });
    this.#signaling = new Signaling(signalingUrl({ room, peer: peerName, token }));
    this.#listen(this.#signaling);
    this.#become('connecting');
  }

  leave() {
    if (!this.active) return;
    this.session?.leave();
    this.#hangUp();
    this.#media.stop();
    this.#become('left');
  }

  #listen(signaling) {
    const on = (type, handle) => signaling.addEventListener(type, ({ detail }) => {
      // Whatever an abandoned connection still has to tell is no longer about this call.
      if (signaling === this.#signaling) handle(detail);
    });
    on('open', () => this.#join());
    on('resuming', () => this.#resuming(true));
    on('resumed', () => {
      this.resumed += 1;
      this.#resuming(false);
    });
    on('down', (detail) => this.#lost(detail));
    on('end', (detail) => this.#end(endOf(detail)));
    on('message', ({ message }) => this.session?.receive(message));
    on('refused', ({ code, reason }) => console.warn('refused by the server: %s %s', code, reason));
  }

  async #join() {
    this.#become('joining');
    const session = new Session({ signaling: this.#signaling, media: this.#media, choices: this.#choices });
    this.session = session;
    session.addEventListener('change', this.#changed);
    session.addEventListener('joined', ({ detail }) => this.#announce('joined', nameOf(detail.peer)));
    session.addEventListener('left', ({ detail }) => this.#announce('left', nameOf(detail.peer)));
    session.addEventListener('closed', () => this.#closed());
    try {
      await session.join(this.peerName, this.displayName);
    } catch (error) {
      if (session === this.session) await this.#refused(session, error);
      return;
    }
    if (session !== this.session) return;
    this.#patience.reset();
    this.#become('joined');
    this.#announce(this.#announced ? 'Connected again' : 'You are in the call');
    this.#announced = true;
  }

  async #refused(session, error) {
    this.#dropSession();
    if (!isTemporary(error)) return this.#end({ kind: 'refused', words: serverWords(error) });
    this.#become('joining', `${serverWords(error)} Trying again…`);
    const signaling = this.#signaling;
    await this.#patience.wait();
    if (signaling === this.#signaling && this.session === null && this.state === 'joining') await this.#join();
  }

  #resuming(resuming) {
    this.resuming = resuming;
    this.#changed();
  }

  #lost({ attempt }) {
    this.resuming = false;
    clearTimeout(this.#closing);  // the server has closed with a code to come back
    const hadJoined = this.session?.joined;
    this.#dropSession();
    if (hadJoined) this.#announce('Connection lost, reconnecting');
    const offline = navigator.onLine ? '' : 'You are offline. ';
    const words = attempt > 1 ? `${offline}The server does not answer. Trying again…` : offline;
    this.#become(this.#announced ? 'reconnecting' : 'connecting', words);
  }

  #closed() {
    this.#dropSession();
    this.#closing = setTimeout(() => this.#end({ kind: 'ended', words: 'The server ended the call.' }), CLOSING_MS);
  }

  #end({ kind, words }) {
    this.#hangUp();
    this.#media.stop();
    this.ending = kind;
    this.#become('ended', words);
  }

  #hangUp() {
    this.#patience.stop();
    this.#dropSession();
    const signaling = this.#signaling;
    this.#signaling = null;
    this.#announced = false;
    this.resuming = false;
    clearTimeout(this.#closing);
    signaling?.close();
  }

  #dropSession() {
    const session = this.session;
    this.session = null;
    session?.drop();
  }

  #become(state, problem = '') {
    this.state = state;
    this.problem = problem;
    this.#changed();
  }

  #announce(text, name = '') {
    this.dispatchEvent(new CustomEvent('announce', { detail: { name, text } }));
  }

  #pending = false;

  // One event for many changes at once. A microtask, as timers and animation frames sleep in hidden tabs,
  // where new people must be heard all the same.
  #changed = () => {
    if (this.#pending) return;
    this.#pending = true;
    queueMicrotask(() => {
      this.#pending = false;
      this.dispatchEvent(new Event('change'));
    });
  };
}

/** What to call a remote person. */
export function nameOf(peer) {
  const name = peer.appData?.displayName;
  return (typeof name === 'string' && plainText(name).slice(0, 80)) || plainText(peer.name) || '?';
}
