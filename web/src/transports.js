// What sending and receiving share: noticing that a transport has lost its way, and trying again with patience.

const RESTART_MS = 8000;
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;

/**
 * Calls `lost()` once when the transport's ICE has failed and an ICE restart did not bring it back, and
 * `changed()` at each change of its connection state.
 */
export function watchTransport(transport, { lost, changed }) {
  let timer;
  transport.on('connectionstatechange', (state) => {
    if (state === 'connected' || state === 'closed') {
      clearTimeout(timer);
      timer = undefined;
    } else if (state === 'failed' && timer === undefined) {
      transport.restartIce();
      timer = setTimeout(lost, RESTART_MS);
    }
    changed();
  });
  transport.on('close', () => clearTimeout(timer));
}

/** Delays that double, spread so that many clients do not ask in step. `wait()` resolves, `stop()` cancels. */
export class Patience {
  tries = 0;
  #timer;

  wait() {
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.tries);
    this.tries += 1;
    return new Promise((resolve) => {
      this.#timer = setTimeout(resolve, longest * (0.5 + Math.random() / 2));
    });
  }

  reset() {
    this.tries = 0;
  }

  stop() {
    clearTimeout(this.#timer);
  }
}
