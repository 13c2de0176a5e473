// Notices a connection that is dead without saying so. Scripts cannot see WebSocket pings, so silence is asked about.

const ANSWER_MS = 5000;

/**
 * Of one connection: `probe()` asks the server for a sign of life, `dead()` is called when none comes. The server is
 * asked after `idleMs` of silence, or sooner while something of ours is `waiting()` to be acknowledged.
 */
export class Watchdog {
  #timers;
  #idleMs;
  #waiting;
  #probe;
  #dead;
  #heardAt;
  #sentAt = 0;
  #probedAt = null;
  #timer;

  constructor({ timers, idleMs, waiting, probe, dead }) {
    this.#timers = timers;
    this.#idleMs = idleMs;
    this.#waiting = waiting;
    this.#probe = probe;
    this.#dead = dead;
    this.#heardAt = timers.now();
    this.look();
  }

  /** A frame came. */
  heard() {
    this.#heardAt = this.#timers.now();
    this.#probedAt = null;
  }

  /** A frame was sent, and all before it are acknowledged. */
  sent() {
    this.#sentAt = this.#timers.now();
    this.look();
  }

  /** To be called when time may have passed unnoticed: the computer has slept. */
  look() {
    this.stop();
    const wait = this.#due() - this.#timers.now();
    if (wait > 0) {
      this.#timer = this.#timers.setTimeout(() => this.look(), wait);
    } else if (this.#probedAt !== null) {
      this.#dead();
    } else {
      this.#probedAt = this.#timers.now();
      this.#timer = this.#timers.setTimeout(() => this.look(), ANSWER_MS);
      this.#probe();
    }
  }

  stop() {
    this.#timers.clearTimeout(this.#timer);
  }

  #due() {
    if (this.#probedAt !== null) return this.#probedAt + ANSWER_MS;
    const idle = this.#heardAt + this.#idleMs;
    return this.#waiting() ? Math.min(idle, Math.max(this.#heardAt, this.#sentAt) + ANSWER_MS) : idle;
  }
}
