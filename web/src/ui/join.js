// The page before the call: who I am, which room, and how I look.

import { nameFault, randomRoom, rememberedName } from '../identity.js';
import { INSECURE } from '../words.js';
import { h, setAttributes, setText } from './dom.js';
import { brand, icon, setIcon } from './icons.js';

const HEADINGS = {
  fresh: ['Start a call', 'Pick a room and share its link. Nothing to install.'],
  invited: ['Join the call', 'You were invited. Say who you are, and come in.'],
  left: ['You left the call', 'To come back, join again: the link of the room still works.'],
  replaced: ['Join here instead?', 'The other window or device leaves the call then.'],
  removed: ['You are out of the call', 'You can start or join another one.'],
  ended: ['The call is over', 'You can start or join another one.'],
  refused: ['You could not join', 'Check the link, or pick another room.'],
  unreachable: ['The call was interrupted', 'Try again when you are connected.'],
};

/** `onJoin({name, room})` is called with valid names. */
export class JoinPage {
  element;
  #media;
  #video;
  #hint;
  #check;
  #toggles;

  constructor({ media, wishes, message, ending, onJoin }) {
    this.#media = media;
    this.element = h('div', { class: 'join' },
      h('header', { class: 'join__top' }, brand()),
      h('main', { class: 'join__card' }, this.#preview(), this.#form({ wishes, message, ending, onJoin })),
      h('footer', { class: 'join__foot' },
        h('span', {}, 'Open source, on your own servers.'),
        h('a', { href: 'THIRD_PARTY_NOTICES.txt' }, 'Notices')),
    );
    media.addEventListener('change', this.#update);
    this.#update();
  }

  remove() {
    this.#media.removeEventListener('change', this.#update);
    this.element.remove();
  }

  #preview() {
    this.#video = h('video', { class: 'preview__video', muted: true, autoplay: true, playsInline: true });
    this.#hint = h('p', { class: 'preview__hint' });
    this.#toggles = Object.fromEntries(['audio', 'video'].map((kind) => [kind, h('button', {
      type: 'button', class: 'round',
      on: { click: () => this.#media.set(kind, !this.#media.wanted[kind]) },
      'aria-label': kind === 'audio' ? 'Microphone' : 'Camera', 'data-testid': `join-${kind}`,
    })]));
    this.#check = h('button', {
      type: 'button', class: 'button', 'data-testid': 'join-check', on: { click: () => this.#media.start() },
    }, 'Check camera and microphone');
    return h('section', { class: 'preview', 'aria-label': 'Preview' },
      this.#video, h('div', { class: 'preview__middle' }, this.#hint, this.#check), h('div', { class: 'preview__buttons' }, ...Object.values(this.#toggles)));
  }

  #form({ wishes, message, ending, onJoin }) {
    const name = h('input', {
      id: 'join-name', class: 'field__input', value: wishes.name || rememberedName(), maxLength: 60, autocomplete: 'name', dir: 'auto',
      placeholder: 'What others will see', required: true, 'data-testid': 'join-name',
    });
    const room = h('input', {
      id: 'join-room', class: 'field__input', value: wishes.room || randomRoom(), maxLength: 100, autocomplete: 'off', dir: 'auto',
      spellcheck: false, autocapitalize: 'none', required: true, 'data-testid': 'join-room',
    });
    const submit = (event) => {
      event.preventDefault();
      for (const field of [name, room]) field.setCustomValidity(nameFault(field.value.trim()));
      if (event.target.reportValidity()) onJoin({ name: name.value.trim(), room: room.value.trim() });
    };
    const clear = (event) => event.target.setCustomValidity('');
    const [title, lead] = HEADINGS[ending] ?? HEADINGS[wishes.room ? 'invited' : 'fresh'];
    // A custom message would block the submit event that renews it, so validation is ours alone.
    return h('form', { class: 'join__form', noValidate: true, on: { submit, input: clear } },
      h('h1', {}, title),
      h('p', { class: 'join__lead' }, lead),
      message ? h('p', { class: 'join__message', role: 'alert', 'data-testid': 'join-message' }, icon('warning'), message) : null,
      h('label', { class: 'field', htmlFor: 'join-name' }, 'Your name', name),
      h('label', { class: 'field', htmlFor: 'join-room' }, 'Room', room),
      h('button', { class: 'button button--primary button--large', 'data-testid': 'join-button' }, 'Join'),
    );
  }

  #update = () => {
    const media = this.#media;
    for (const kind of ['audio', 'video']) {
      setAttributes(this.#toggles[kind], { 'aria-pressed': media.wanted[kind] });
      setIcon(this.#toggles[kind], `${kind === 'audio' ? 'mic' : 'camera'}${media.wanted[kind] ? '' : 'Off'}`);
    }
    const track = media.track('video');
    if (this.#video.srcObject?.getVideoTracks()[0] !== track) {
      this.#video.srcObject = track ? new MediaStream([track]) : null;
    }
    this.#video.hidden = !media.isOn('video');
    setText(this.#hint, this.#hintWords());
    this.#hint.hidden = !this.#video.hidden && !media.problem;
    this.#check.hidden = Boolean(media.track('audio') || media.track('video')) || !navigator.mediaDevices
      || !(media.wanted.audio || media.wanted.video);
    setAttributes(this.#hint, { 'data-problem': Boolean(media.problem) });
  };

  #hintWords() {
    const media = this.#media;
    if (media.problem) return media.problem;
    if (!navigator.mediaDevices) return INSECURE;
    if (!media.wanted.video) return 'Your camera is off';
    return 'How do you look and sound?';
  }
}
