// How the connection is, always as words too: a pill in the header and, for problems, a banner.

import { h, setAttributes, setText } from './dom.js';
import { icon } from './icons.js';

const WORDS = {
  idle: '', connecting: 'Connecting…', joining: 'Joining…', joined: 'Connected', reconnecting: 'Reconnecting…',
  left: 'You left', ended: 'Ended',
};
const TROUBLED = new Set(['failed', 'disconnected']);

/** {state, text}: `state` is the call's, `resuming` while it goes on without signaling, or `unstable` without media. */
export function statusOf(call) {
  if (call.state === 'joined' && call.resuming) return { state: 'resuming', text: 'Reconnecting…' };
  if (call.state === 'joined' && call.session) {
    const { sending, receiving } = call.session;
    const states = [sending, receiving].map((part) => part?.transport?.connectionState);
    if (states.some((state) => TROUBLED.has(state))) return { state: 'unstable', text: 'Restoring media…' };
  }
  return { state: call.state, text: WORDS[call.state] };
}

export class Status {
  element = h('p', { class: 'status', 'data-testid': 'status' });

  update(call) {
    const { state, text } = statusOf(call);
    setText(this.element, text);
    setAttributes(this.element, { 'data-state': state });
  }
}

/** The most important problem, in words. `onRetry` is offered for those of my own devices. */
export class Banner {
  element;
  #text = h('span', { class: 'banner__text' });
  #button;
  #close;
  #dismissed = '';

  constructor({ onRetry, onSound }) {
    this.#button = h('button', { type: 'button', class: 'button button--small', on: {
      click: () => (this.#sound ? onSound() : onRetry()),
    } });
    this.#close = h('button', { type: 'button', class: 'banner__close', 'aria-label': 'Dismiss', on: {
      click: () => {
        this.#dismissed = this.#text.textContent;
        this.element.hidden = true;
      },
    } }, icon('close'));
    this.element = h('div', { class: 'banner', role: 'alert', hidden: true, 'data-testid': 'problem' },
      icon('warning'), this.#text, this.#button, this.#close);
  }

  #sound = false;

  update(call, soundBlocked) {
    const { media, session } = call;
    const own = call.problem || session?.sending?.problem || session?.receiving?.problem || '';
    this.#sound = !own && soundBlocked;
    const text = own || (soundBlocked ? 'Your browser waits for a click before it plays sound.' : media.problem);
    setText(this.#text, text);
    setText(this.#button, this.#sound ? 'Turn on sound' : 'Try again');
    this.#button.hidden = Boolean(own) || !(this.#sound || navigator.mediaDevices);
    if (text !== this.#dismissed) this.#dismissed = '';
    this.element.hidden = !text || text === this.#dismissed;
  }
}
