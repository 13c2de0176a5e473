// What the client of a resumable session keeps: the numbers of both directions, and what the server may not have yet.

const FRAME_BYTES = 1024 * 1024;
const KEPT_FRAMES = 1024;
const KEPT_BYTES = 4 * 1024 * 1024;

const encoder = new TextEncoder();

/** More was sent than may be kept until the server has it. */
export class Overflow extends Error {}

export class Ledger {
  /** What a server's frame can be. */
  static NEW = 'new';
  static SEEN = 'seen';
  /** One before it is missing. */
  static AHEAD = 'ahead';

  #token;
  #attempt = 0;
  #seq = 0;
  #next = 1;
  #kept = [];
  #bytes = 0;

  constructor({ token, graceSeconds }) {
    this.#token = token;
    this.graceSeconds = graceSeconds;
  }

  /** How many sent frames the server may not have. */
  get unacknowledged() {
    return this.#kept.length;
  }

  /** The frame as it is to be sent, with its number. Throws, without giving it one, what cannot be sent or kept. */
  number(message) {
    const text = JSON.stringify({ ...message, cseq: this.#next });
    const bytes = encoder.encode(text).length;
    if (bytes > FRAME_BYTES) throw new RangeError(`message too large: ${bytes} bytes, at most ${FRAME_BYTES}`);
    if (this.#kept.length >= KEPT_FRAMES || this.#bytes + bytes > KEPT_BYTES) {
      throw new Overflow(`the server has not got the last ${this.#kept.length} messages`);
    }
    this.#kept.push({ n: this.#next, text, bytes });
    this.#bytes += bytes;
    this.#next += 1;
    return text;
  }

  /** Takes note of a frame's numbers. One without is always new. */
  receive({ seq, ack }) {
    if (ack !== undefined) this.acknowledge(ack);
    if (seq === undefined) return Ledger.NEW;
    if (seq <= this.#seq) return Ledger.SEEN;
    if (seq > this.#seq + 1) return Ledger.AHEAD;
    this.#seq = seq;
    return Ledger.NEW;
  }

  acknowledge(n) {
    const first = this.#kept.findIndex((frame) => frame.n > n);
    const gone = this.#kept.splice(0, first < 0 ? this.#kept.length : first);
    for (const { bytes } of gone) this.#bytes -= bytes;
  }

  /** The query of the next attempt to go on. */
  resume() {
    this.#attempt += 1;
    return { resume: this.#token, ack: this.#seq, attempt: this.#attempt };
  }

  /** The server has the frames up to `n`: what is to be sent again, in order. */
  resumed(n) {
    this.acknowledge(n);
    return this.#kept.map(({ text }) => text);
  }
}
