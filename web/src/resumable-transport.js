// A transport for protoo-client's `Peer` whose session outlives its connections (docs/reference/resumable-sessions.md).
//
//   const peer = new protooClient.Peer(new ResumableTransport(url));
//
// Stands alone: the built file is dist/resumable-transport.js.

import { Emitter } from './resumable/emitter.js';
import { Ledger, Overflow } from './resumable/ledger.js';
import { Line } from './resumable/line.js';
import { Watchdog } from './resumable/watchdog.js';

const STAY_AWAY = 4000;
const GONE = 4001;
const GAP = 4002;

const RETRY = { retries: 10, factor: 2, minTimeout: 1000, maxTimeout: 8000 };
const RESUME_FIRST_MS = 200;
const RESUME_LONGEST_MS = 2000;
/** How often in a row the server may miss messages before the session is given up. */
const MOST_GAPS = 5;
const HEARTBEAT_SECONDS = 25;

const SYSTEM = {
  setTimeout: (...args) => setTimeout(...args),
  clearTimeout: (timer) => clearTimeout(timer),
  now: () => performance.now(), // the wall clock may be set
  random: () => Math.random(),
};

/**
 * Events of protoo's transports: `open`, `disconnected`, `failed` (attempt), `close` ({code, reason}), `message`.
 * Besides, `resuming` and `resumed`: the connection is lost, and the session goes on over another. What is sent in
 * between is kept, what comes is replayed; nobody needs to know. Only when that cannot be, `disconnected` tells that
 * what the session held is lost, and a new one is begun, as protoo's own transport does after each lost connection.
 *
 * @param {string} url  as for protoo's `WebSocketTransport`
 * @param {object} [options]
 * @param {object} [options.retry]  {retries, factor, minTimeout, maxTimeout} of beginning anew, as protoo's
 * @param {number} [options.heartbeatSeconds]  silence after which the server is asked whether it is still there
 * @param {Function} [options.WebSocket]  where there is no global one
 */
export class ResumableTransport extends Emitter {
  #url;
  #retry;
  #heartbeatMs;
  #WebSocket;
  #timers;
  #world;
  #closed = false;
  #line = null;
  #watchdog = null;
  /** The session; null while a new one is being begun. */
  #ledger = null;
  #tries = 0;
  #gaps = 0;
  #pause;
  #grace;
  #wasOffline = false;

  constructor(url, options = {}) {
    super();
    this.#url = url;
    this.#retry = { ...RETRY, ...options.retry };
    this.#heartbeatMs = 1000 * (options.heartbeatSeconds ?? HEARTBEAT_SECONDS);
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.#timers = options.timers ?? SYSTEM;
    this.#world = options.world ?? globalThis;
    this.#listen('addEventListener');
    this.#begin();
  }

  get closed() {
    return this.#closed;
  }

  /** Ends the session, for the server too. */
  close() {
    if (this.#closed) return;
    const line = this.#line;
    this.#end(1000, '');
    line?.drop(1000);
  }

  /** Rejects what can neither be sent nor kept. */
  async send(message) {
    if (this.#closed) throw new Error('transport closed');
    if (!this.#ledger) throw new Error('not connected');
    let text;
    try {
      text = this.#ledger.number(message);
    } catch (error) {
      if (error instanceof Overflow) this.#giveUp();
      throw error;
    }
    if (!this.#line?.greeted) return;
    this.#line.send(text);
    if (this.#ledger.unacknowledged === 1) this.#watchdog.sent();
  }

  // --- connections ------------------------------------------------------------------------------------------

  /** A new session. */
  #begin() {
    this.#ledger = null;
    this.#tries = 0;
    this.#dial();
  }

  #dial() {
    this.#timers.clearTimeout(this.#pause);
    this.#tries += 1;
    const line = new Line(this.#address(), {
      WebSocket: this.#WebSocket,
      timers: this.#timers,
      onFrame: (frame) => line === this.#line && this.#receive(frame),
      onEnd: (code, reason) => line === this.#line && this.#lost(code, reason),
    });
    this.#line = line;
  }

  #address() {
    const url = new URL(this.#url, this.#world.location?.href);
    const fields = { resumable: 1, ...this.#ledger?.resume() };
    for (const [name, value] of Object.entries(fields)) url.searchParams.set(name, value);
    return url.href;
  }

  #lost(code, reason) {
    const wasOn = this.#line.greeted;
    this.#line = null;
    this.#watchdog?.stop();
    if (code === STAY_AWAY) {
      this.#end(code, reason);
    } else if (!this.#ledger) {
      this.emit('failed', this.#tries);
      if (!this.#closed && !this.#line) this.#tryAgain(code, reason);
    } else {
      this.#gaps = code === GAP ? this.#gaps + 1 : 0;
      if (code === GONE || this.#gaps >= MOST_GAPS) this.#giveUp();
      else if (wasOn) this.#resume();
      else this.#wait(Math.min(RESUME_LONGEST_MS, RESUME_FIRST_MS * 2 ** (this.#tries - 1)));
    }
  }

  #tryAgain(code, reason) {
    const { retries, factor, minTimeout, maxTimeout } = this.#retry;
    if (this.#tries > retries) this.#end(code, reason);
    else this.#wait(Math.min(maxTimeout, minTimeout * factor ** (this.#tries - 1)));
  }

  /** Spread, as the clients of a dead gateway come back all at once. */
  #wait(longest) {
    this.#pause = this.#timers.setTimeout(() => this.#dial(), longest * (0.5 + this.#timers.random() / 2));
  }

  /** The session goes on over another connection, if one can be had before the server gives it up. */
  #resume() {
    this.#tries = 0;
    this.#grace = this.#timers.setTimeout(() => this.#giveUp(), 1000 * this.#ledger.graceSeconds);
    this.emit('resuming');
    if (!this.#closed && !this.#line) this.#dial();
  }

  #giveUp() {
    this.#rest();
    this.#line?.drop();
    this.#line = null;
    this.#ledger = null;
    this.#gaps = 0;
    this.emit('disconnected');
    if (!this.#closed && !this.#line) this.#begin();
  }

  #end(code, reason) {
    this.#closed = true;
    this.#rest();
    this.#line = null;
    this.#ledger = null;
    this.#listen('removeEventListener');
    this.emit('close', { code, reason });
  }

  #rest() {
    this.#timers.clearTimeout(this.#pause);
    this.#timers.clearTimeout(this.#grace);
    this.#watchdog?.stop();
  }

  // --- frames -----------------------------------------------------------------------------------------------

  #receive(frame) {
    this.#watchdog?.heard();
    if (frame.method === 'session' && frame.seq === undefined) {
      this.#told(frame.data ?? {});
      return;
    }
    if (!this.#line.greeted) return;
    const news = this.#ledger.receive(frame);
    if (news === Ledger.AHEAD) {
      this.#line.cut();
    } else if (news === Ledger.NEW) {
      this.#gaps = 0;
      const message = asProtoo(frame);
      if (message) this.emit('message', message);
    }
  }

  /** What the server says of the session itself. */
  #told({ resumed, token, graceSeconds, in: kept, ack }) {
    if (this.#line.greeted) {
      if (ack !== undefined) this.#ledger.acknowledge(ack);
    } else if (resumed && this.#ledger) {
      this.#greeted();
      for (const text of this.#ledger.resumed(kept)) this.#line.send(text);
      if (this.#ledger.unacknowledged > 0) this.#watchdog.sent();
      this.emit('resumed');
    } else if (token !== undefined && !this.#ledger) {
      this.#ledger = new Ledger({ token, graceSeconds });
      this.#greeted();
      this.emit('open');
    } else {
      this.#giveUp();
    }
  }

  #greeted() {
    this.#rest();
    const line = this.#line;
    line.greet();
    this.#watchdog = new Watchdog({
      timers: this.#timers,
      idleMs: this.#heartbeatMs,
      waiting: () => this.#ledger.unacknowledged > 0,
      probe: () => line.send('{"notification":true,"method":"session"}'),
      dead: () => line.cut(),
    });
  }

  // --- the world --------------------------------------------------------------------------------------------

  #listen(how) {
    this.#world[how]?.('offline', this.#onOffline);
    this.#world[how]?.('online', this.#onOnline);
    this.#world.document?.[how]('visibilitychange', this.#onVisible);
  }

  #onOffline = () => {
    this.#wasOffline = true;
  };

  /** Another network: what the old connection carried is not worth waiting for. */
  #onOnline = () => {
    if (this.#wasOffline && this.#line?.greeted) this.#line.cut();
    else if (!this.#line) this.#dial();
    this.#wasOffline = false;
  };

  #onVisible = () => {
    if (this.#line?.greeted) this.#watchdog.look();
  };
}

/** The frame as protoo's `Message.parse` has it; null if it is none. */
function asProtoo({ request, response, notification, id, method, ok, data, errorCode, errorReason }) {
  if (request) return typeof id === 'number' && method ? { request: true, id, method, data: data || {} } : null;
  if (notification) return method ? { notification: true, method, data: data || {} } : null;
  if (!response || typeof id !== 'number') return null;
  return ok ? { response: true, id, ok: true, data: data || {} } : { response: true, id, ok: false, errorCode, errorReason };
}
