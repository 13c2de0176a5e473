// Microphone, camera, invite, leave.

import { h, setAttributes, setText } from './dom.js';
import { icon, setIcon } from './icons.js';

const NAMES = {
  audio: { on: 'mic', off: 'micOff', label: 'Mute microphone', key: 'm', shown: ['Mute', 'Unmute'], test: 'mute' },
  video: { on: 'camera', off: 'cameraOff', label: 'Turn camera off', key: 'v', shown: ['Stop video', 'Start video'], test: 'camera' },
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
      const { on, off, shown } = NAMES[kind];
      const button = this.#buttons[kind];
      const isOn = this.#media.isOn(kind);
      setIcon(button, isOn ? on : off);
      setAttributes(button, { 'aria-pressed': !isOn });
      setText(button.querySelector('.tool__text'), shown[isOn ? 0 : 1]);
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
    const { label, key, test } = NAMES[kind];
    return h('button', {
      type: 'button', class: 'tool', 'aria-label': label, 'aria-keyshortcuts': key, title: `${label} (${key.toUpperCase()})`,
      'data-testid': test, on: { click: () => this.#flip(kind) },
    }, h('span', { class: 'tool__text' }));
  }

  #flip(kind) {
    void this.#media.set(kind, !this.#media.isOn(kind));
  }
}
