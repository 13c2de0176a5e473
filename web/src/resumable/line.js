// One WebSocket, from the first try to its end. Only the first end counts, whoever brings it about.

const SUBPROTOCOL = 'protoo';
const GREETING_MS = 12_000;
const ABNORMAL = 1006;

/** `onFrame(frame)` for each JSON object that comes, `onEnd(code, reason)` once, unless `drop` comes first. */
export class Line {
  /** Whether the server has said that the session is on. */
  greeted = false;
  #socket;
  #timers;
  #patience;
  #onEnd;

  constructor(url, { WebSocket, timers, onFrame, onEnd }) {
    this.#timers = timers;
    this.#onEnd = onEnd;
    this.#socket = new WebSocket(url, SUBPROTOCOL);
    this.#socket.onmessage = ({ data }) => {
      const frame = parse(data);
      if (frame) onFrame(frame);
    };
    this.#socket.onclose = ({ code, reason }) => this.end(code, reason);
    this.#patience = timers.setTimeout(() => this.cut(), GREETING_MS);
  }

  greet() {
    this.greeted = true;
    this.#timers.clearTimeout(this.#patience);
  }

  /** Never throws: what does not leave here is kept and sent again. */
  send(text) {
    try {
      this.#socket.send(text);
    } catch {
      // the socket is about to say that it is closed
    }
  }

  /** It is of no use any more: ends it as a lost network does. */
  cut() {
    this.end(ABNORMAL, '');
  }

  end(code, reason) {
    if (this.drop()) this.#onEnd(code, reason);
  }

  /** Lets go of it without a word to the owner; with a code, which the server learns. */
  drop(...code) {
    const socket = this.#socket;
    if (!socket) return false;
    this.#socket = null;
    this.#timers.clearTimeout(this.#patience);
    socket.onmessage = socket.onclose = null;
    try {
      socket.close(...code);
    } catch {
      // it was closed already
    }
    return true;
  }
}

function parse(data) {
  try {
    const frame = JSON.parse(data);
    return frame !== null && typeof frame === 'object' && !Array.isArray(frame) ? frame : null;
  } catch {
    return null;
  }
}
