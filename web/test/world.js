// A browser's clock, network and events, and gateways that keep a session by the rules, as tests drive them.

export class Timers {
  #now = 0;
  #last = 0;
  #waiting = new Map();

  setTimeout = (call, ms) => {
    this.#last += 1;
    this.#waiting.set(this.#last, { at: this.#now + ms, call });
    return this.#last;
  };

  clearTimeout = (timer) => this.#waiting.delete(timer);

  now = () => this.#now;

  random = () => 1;

  advance(ms) {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#waiting].filter(([, { at }]) => at <= end).sort(([a, x], [b, y]) => x.at - y.at || a - b)[0];
      if (!due) break;
      const [timer, { at, call }] = due;
      this.#waiting.delete(timer);
      this.#now = Math.max(this.#now, at);
      call();
    }
    this.#now = end;
  }

  get idle() {
    return this.#waiting.size === 0;
  }
}

/** The server's side of all sockets; `sockets` has them in the order in which they were opened. */
export class Net {
  sockets = [];
  sessions = new Map();
  refuse = false;
  /** Sockets open, but nobody answers. */
  mute = false;
  /** What the server does with a request. */
  answer = (frame) => ({ response: true, id: frame.id, ok: true, data: frame.data });

  get last() {
    return this.sockets.at(-1);
  }

  get WebSocket() {
    const net = this;
    return class extends Socket {
      constructor(url, protocol) {
        super(net, url, protocol);
      }
    };
  }
}

class Socket {
  onmessage = null;
  onclose = null;
  closed = null;
  sent = [];
  session = null;
  #net;

  constructor(net, url, protocol) {
    this.#net = net;
    this.url = new URL(url);
    this.protocol = protocol;
    net.sockets.push(this);
  }

  // --- the client's

  send(text) {
    if (this.closed) throw new Error('InvalidStateError');
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closed ??= { code, byClient: true };
  }

  // --- the server's

  get query() {
    return Object.fromEntries(this.url.searchParams);
  }

  /** The server accepts, and greets if it is to. */
  accept() {
    if (this.#net.refuse) return this.end(1006);
    if (this.#net.mute) return undefined;
    const { resume, ack } = this.query;
    if (resume === undefined) {
      const token = `token${this.#net.sessions.size + 1}`;
      this.session = { token, in: 0, out: [], seen: [], socket: this };
      this.#net.sessions.set(token, this.session);
      return this.frame({ notification: true, method: 'session', data: { resumed: false, token, graceSeconds: 15 } });
    }
    this.session = this.#net.sessions.get(resume) ?? null;
    if (!this.session) {
      this.frame({ notification: true, method: 'session', data: { resumed: false } });
      return this.end(4001);
    }
    this.session.socket = this;
    const info = { resumed: true, in: this.session.in, graceSeconds: 15 };
    this.frame({ notification: true, method: 'session', data: info });
    for (const [at, frame] of this.session.out.entries()) {
      if (at >= Number(ack)) this.frame({ ...frame, seq: at + 1, ack: this.session.in });
    }
    return undefined;
  }

  /** The server reads what has come, and answers if it still can. */
  read(count = this.sent.length) {
    for (const frame of this.sent.splice(0, count)) {
      const { session } = this;
      if (frame.cseq === undefined) {
        this.frame({ notification: true, method: 'session', data: { ack: session.in } });
      } else if (frame.cseq === session.in + 1) {
        session.in = frame.cseq;
        session.seen.push(frame);
        if (frame.request) this.push(this.#net.answer(frame));
      } else if (frame.cseq > session.in + 1) {
        this.end(4002);
      }
    }
  }

  /** A numbered frame. */
  push(frame) {
    this.session.out.push(frame);
    this.session.socket.frame({ ...frame, seq: this.session.out.length, ack: this.session.in });
  }

  frame(frame) {
    this.text(JSON.stringify(frame));
  }

  text(data) {
    if (!this.closed) this.onmessage?.({ data });
  }

  end(code = 1006, reason = '') {
    if (this.closed) return;
    this.closed = { code, byClient: false };
    this.onclose?.({ code, reason });
  }
}

/** `window`, as far as the transport looks at it. */
export class Page extends EventTarget {
  location = { href: 'https://example.org/page' };
  document = new EventTarget();
}
