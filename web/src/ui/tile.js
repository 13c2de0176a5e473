// One person in the grid.

import { h, setAttributes, setText } from './dom.js';
import { icon, setIcon } from './icons.js';

const PROFILES = [['default', 'Auto'], ['high', 'High'], ['medium', 'Medium'], ['low', 'Low']];
const LAYERS = new Set(['low', 'medium', 'high']);

/**
 * What a tile shows (`update`): {name, audio, video: null or {track, paused: '' or words, ...}, quality, profile}.
 * `actions`, absent for myself: {pause(kinds, on), profile(value)}, `kinds` of audio and video.
 */
export class Tile {
  element;
  /** Set when the browser refused to play sound without a click. */
  blocked = false;
  #id;
  #actions;
  #parts = {};
  #controls = null;

  constructor(id, { owner = id, self = false, screen = false, actions = null, onBlocked = () => {} }) {
    this.#id = id;
    this.#actions = actions;
    const parts = this.#parts;
    parts.video = h('video', { class: 'tile__video', autoplay: true, playsInline: true, muted: true });
    parts.avatar = h('div', { class: 'tile__avatar', 'aria-hidden': 'true' });
    parts.note = h('p', { class: 'tile__note' });
    parts.mic = h('span', { class: 'tile__mic', title: 'Muted' });
    parts.name = h('bdi', { class: 'tile__name' });
    parts.quality = h('span', { class: 'tile__quality', title: 'Quality you receive' });
    this.element = h('article', {
      class: `tile${self ? ' tile--self' : ''}${screen ? ' tile--screen' : ''}`, 'data-testid': `tile-${id}`,
      style: `--hue: ${hueOf(owner)}`,
    },
    h('div', { class: 'tile__middle' }, parts.avatar, parts.note), parts.video,
    h('div', { class: 'tile__label' }, parts.mic, parts.name,
      self ? h('span', { class: 'tile__you' }, 'you') : null,
      screen ? h('span', { class: 'tile__you' }, 'screen') : null, parts.quality));
    for (const event of ['loadeddata', 'emptied']) {
      parts.video.addEventListener(event, () => this.element.toggleAttribute('data-frames', event === 'loadeddata'));
    }
    if (!actions) return;
    parts.audio = h('audio', { autoplay: true });
    this.element.append(parts.audio, this.#makeControls());
    this.#onBlocked = onBlocked;
  }

  #onBlocked = () => {};

  update({ name, screen = false, audio, video, quality = '', profile = 'default' }) {
    const parts = this.#parts;
    const note = videoNote(video);
    setText(parts.name, name);
    setText(parts.avatar, initialsOf(name));
    setText(parts.note, note);
    setText(parts.quality, LAYERS.has(quality) && !note ? quality : '');
    parts.quality.hidden = parts.quality.textContent === '';
    play(parts.video, video?.track ?? null);
    if (parts.audio) play(parts.audio, audio?.track ?? null, () => this.#soundBlocked());
    const silent = !audio || audio.off || audio.pausedByMe;
    // Most screens have no sound, and nobody expects one.
    parts.mic.hidden = !silent || (screen && !audio);
    setIcon(parts.mic, audio?.pausedByMe ? 'soundOff' : 'micOff');
    setAttributes(parts.mic, { title: audio?.pausedByMe ? 'Muted by you' : 'Microphone off' });
    setAttributes(this.element, { 'data-video': note ? 'off' : 'on', 'aria-label': `${name}${screen ? ', screen' : ''}${parts.mic.hidden ? '' : ', muted'}` });
    const whose = screen ? `the screen of ${name}` : name;
    if (this.#controls) this.#updateControls({ name: whose, audio, video, quality, profile });
  }

  speaking(on) {
    this.element.toggleAttribute('data-speaking', on);
  }

  /** Tries the sound again, after a click. */
  unblock() {
    this.blocked = false;
    this.#parts.audio?.play().catch(() => this.#soundBlocked());
  }

  remove() {
    for (const part of [this.#parts.video, this.#parts.audio]) if (part) part.srcObject = null;
    this.element.remove();
  }

  #soundBlocked() {
    this.blocked = true;
    this.#onBlocked();
  }

  #makeControls() {
    const button = (test, kinds) => h('button', {
      type: 'button', class: 'tile__button', 'data-testid': `tile-${test}-${this.#id}`,
      on: { click: (event) => this.#actions.pause(kinds, event.currentTarget.getAttribute('aria-pressed') !== 'true') },
    });
    const controls = {
      sound: button('mute', ['audio']),
      picture: button('hide', ['video']),
      pause: button('pause', ['audio', 'video']),
      profile: h('select', {
        class: 'tile__select', 'data-testid': `tile-profile-${this.#id}`,
        on: { change: (event) => this.#actions.profile(event.target.value) },
      }, ...PROFILES.map(([value, label]) => h('option', { value }, label))),
    };
    const more = h('button', {
      type: 'button', class: 'tile__button tile__more', 'aria-label': 'Options', 'aria-expanded': 'false',
      'data-testid': `tile-more-${this.#id}`,
      on: { click: () => more.setAttribute('aria-expanded', this.element.toggleAttribute('data-open')) },
    }, icon('more'));
    this.#controls = controls;
    return h('div', { class: 'tile__controls' },
      h('div', { class: 'tile__set' }, controls.profile, controls.sound, controls.picture, controls.pause), more);
  }

  #updateControls({ name, audio, video, quality, profile }) {
    const { sound, picture, pause, profile: select } = this.#controls;
    const soundOff = audio?.pausedByMe ?? false;
    const pictureOff = video?.pausedByMe ?? false;
    const all = (audio || video) && (!audio || soundOff) && (!video || pictureOff);
    const show = (button, on, off, label, pressed, usable) => {
      setIcon(button, pressed ? off : on);
      setAttributes(button, { 'aria-pressed': Boolean(pressed), 'aria-label': label, title: label });
      button.disabled = !usable;
    };
    show(sound, 'sound', 'soundOff', `Mute ${name} for me`, soundOff, audio);
    show(picture, 'video', 'videoOff', `Stop receiving the picture of ${name}`, pictureOff, video);
    show(pause, 'pause', 'play', `Pause ${name} for me`, all, audio || video);
    select.hidden = !(video && (LAYERS.has(quality) || quality === 'none' || video.simulcast));
    if (select.value !== profile) select.value = profile;
    setAttributes(select, { 'aria-label': `Picture quality of ${name}`, title: 'Picture quality' });
  }
}

function videoNote(video) {
  if (!video) return 'Camera off';
  if (!video.supported) return 'This browser cannot show this picture';
  if (video.pausedByMe) return 'Paused by you';
  if (video.off) return 'Camera off';
  return '';
}

function play(element, track, onRefused = () => {}) {
  if ((element.srcObject?.getTracks()[0] ?? null) === track) return;
  element.srcObject = track ? new MediaStream([track]) : null;
  // AbortError only means that the next track came before this one could start.
  if (track) element.play().catch((error) => error.name === 'NotAllowedError' && onRefused());
}

function initialsOf(name) {
  const words = name.trim().split(/[\s._-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words.slice(0, 1);
  return letters.map((word) => [...word][0].toUpperCase()).join('') || '?';
}

/** The same person has the same colour on every screen. */
function hueOf(id) {
  let hash = 0;
  for (const letter of id) hash = (hash * 31 + letter.codePointAt(0)) % 3600;
  // The golden angle sets names apart that differ in one letter only.
  return Math.round(hash * 137.5) % 360;
}
