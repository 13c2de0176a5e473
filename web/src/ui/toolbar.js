// Microphone, camera, invite, leave.

import { h, setAttributes, setText } from './dom.js';
import { icon, setIcon } from './icons.js';

const NAMES = {
  audio: { on: 'mic', off: 'micOff', key: 'm', shown: ['Mute', 'Unmute'], label: (shown) => `${shown} microphone`, test: 'mute' },
  video: { on: 'camera', off: 'cameraOff', key: 'v', shown: ['Stop video', 'Start video'], label: (shown) => shown, test: 'camera' },
};

export class Toolbar {
  element;
  #media;
  #buttons = {};

  constructor(media, { onShare, onLeave }) {
    this.#media = media;
    for (const kind of ['audio', 'video']) this.#buttons[kind] = this.#toggle(kind);
    this.element = h('div', { class: 'toolbar', role: 'toolbar', 'aria-label': 'Call' },
      this.#buttons.audio, this.#buttons.video,
      h('button', { type: 'button', class: 'tool', 'data-testid': 'share', 'aria-label': 'Invite people', on: { click: onShare } },
        icon('link'), h('span', { class: 'tool__text' }, 'Invite')),
      h('button', { type: 'button', class: 'tool tool--leave', 'data-testid': 'leave', 'aria-label': 'Leave call', on: { click: onLeave } },
        icon('leave'), h('span', { class: 'tool__text' }, 'Leave')));
  }

  update() {
    for (const kind of ['audio', 'video']) {
      const { on, off, key, shown, label } = NAMES[kind];
      const button = this.#buttons[kind];
      const isOn = this.#media.isOn(kind);
      setIcon(button, isOn ? on : off);
      // The name says what a click does and begins with the text that is seen, so that it can be spoken, too.
      const text = shown[isOn ? 0 : 1];
      setText(button.querySelector('.tool__text'), text);
      setAttributes(button, { 'data-off': !isOn, 'aria-label': label(text), title: `${label(text)} (${key.toUpperCase()})` });
    }
  }

  /** m and v, unless they are being typed into something. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest?.('input, select, textarea, dialog')) return;
    const kind = ['audio', 'video'].find((candidate) => NAMES[candidate].key === event.key.toLowerCase());
    if (kind) this.#flip(kind);
  }

  #toggle(kind) {
    const { key, test } = NAMES[kind];
    return h('button', {
      type: 'button', class: 'tool', 'aria-keyshortcuts': key,
      'data-testid': test, on: { click: () => this.#flip(kind) },
    }, h('span', { class: 'tool__text' }));
  }

  #flip(kind) {
    void this.#media.set(kind, !this.#media.isOn(kind));
  }
}
