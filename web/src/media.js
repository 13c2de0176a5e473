// My camera and microphone: which I want on, and the tracks I have.

import { INSECURE, deviceWords } from './words.js';

const CONSTRAINTS = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  // Three simulcast layers need this size; a camera with less gives what it has.
  video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } },
};

/** Events: `change`. */
export class Media extends EventTarget {
  /** What the user wants on. */
  wanted = { audio: true, video: true };
  #tracks = { audio: null, video: null };
  /** Why a kind is missing, in words: until it is there, asked for again, or turned off. */
  #faults = { audio: '', video: '' };
  #starting = Promise.resolve();
  #stops = 0;

  /** Why something is missing, in words; empty if nothing is. */
  get problem() {
    return [...new Set(Object.values(this.#faults))].filter(Boolean).join(' ');
  }

  /** The live track, or null. A muted microphone keeps its track, a camera turned off does not. */
  track(kind) {
    return this.#tracks[kind];
  }

  isOn(kind) {
    return this.wanted[kind] && this.#tracks[kind] !== null;
  }

  /** Asks for whatever is wanted and missing. Never rejects: `problem` says what could not be had. */
  start() {
    this.#starting = this.#starting.then(() => this.#start());
    return this.#starting;
  }

  async set(kind, on) {
    this.wanted[kind] = on;
    this.#faults[kind] = '';
    // Only a stopped track turns the camera's light off; pausing alone would leave people in doubt.
    if (!on && kind === 'video') this.#drop('video');
    this.#changed();
    if (on) await this.start();
  }

  /** Turned off by somebody else, for a reason given in words. */
  refuse(kind, words) {
    void this.set(kind, false);
    this.#faults[kind] = words;
    this.#changed();
  }

  stop() {
    this.#stops += 1;
    this.#drop('audio');
    this.#drop('video');
    this.#changed();
  }

  async #start() {
    const kinds = ['audio', 'video'].filter((kind) => this.wanted[kind] && !this.#tracks[kind]);
    for (const kind of kinds) this.#faults[kind] = '';
    if (kinds.length > 0 && !navigator.mediaDevices?.getUserMedia) {
      this.#lack(kinds, INSECURE);
    } else if (kinds.length > 0) {
      await this.#capture(kinds);
    }
    this.#changed();
  }

  async #capture(kinds) {
    const stops = this.#stops;
    try {
      const wanted = Object.fromEntries(kinds.map((kind) => [kind, CONSTRAINTS[kind]]));
      const stream = await navigator.mediaDevices.getUserMedia(wanted);
      for (const track of stream.getTracks()) {
        // Turned off again, or left, while the browser was still asking.
        if (this.wanted[track.kind] && stops === this.#stops) this.#keep(track);
        else track.stop();
      }
    } catch (error) {
      if (kinds.length === 1 || error.name === 'NotAllowedError') return this.#missing(error, kinds);
      // One missing device fails the whole request: a person with only a microphone should still be heard.
      for (const kind of kinds) await this.#capture([kind]);
    }
  }

  #missing(error, kinds) {
    this.#lack(kinds, deviceWords(error, kinds));
  }

  #lack(kinds, words) {
    for (const kind of kinds) {
      this.wanted[kind] = false;
      this.#faults[kind] = words;
    }
  }

  #keep(track) {
    this.#tracks[track.kind] = track;
    track.addEventListener('ended', () => {
      if (this.#tracks[track.kind] !== track) return;
      this.#tracks[track.kind] = null;
      this.#missing({ name: 'NotReadableError' }, [track.kind]);
      this.#changed();
    });
  }

  #drop(kind) {
    this.#tracks[kind]?.stop();
    this.#tracks[kind] = null;
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }
}

/** Resolves to true if camera and microphone are ours already: then a preview asks nobody anything. */
export async function mayPreview() {
  try {
    const states = await Promise.all(
      ['camera', 'microphone'].map((name) => navigator.permissions.query({ name })),
    );
    return states.every(({ state }) => state === 'granted');
  } catch {
    return false; // some browsers do not know these permission names
  }
}
