// All tiles: mine, the others', and while nobody is here the invitation.

import { nameOf } from '../call.js';
import { plainText } from '../plaintext.js';
import { h } from './dom.js';
import { bestGrid } from './layout.js';
import { placesOf } from '../places.js';
import { linkBox } from './share.js';
import { Tile } from './tile.js';

export class Grid {
  #rows = h('div', { class: 'grid__rows', role: 'group', 'aria-label': 'People in this call' });
  element = h('div', { class: 'grid' }, this.#rows);
  #call;
  #self;
  #invitation;
  #tiles = new Map();
  #onBlocked;
  #observer = new ResizeObserver(() => this.#layout());

  /** `onBlocked()`: the browser wants a click before it plays sound. */
  constructor(call, onBlocked) {
    this.#call = call;
    this.#onBlocked = onBlocked;
    this.#self = new Tile(call.peerName, { self: true });
    this.#invitation = h('section', { class: 'invitation', 'data-testid': 'empty' },
      h('h2', {}, 'You’re the only one here'),
      h('p', {}, 'Share the link, and people appear as they join.'),
      linkBox(call.room, 'empty'));
    this.#rows.append(this.#self.element);
    this.#observer.observe(this.element);
  }

  update() {
    const { state } = this.#call;
    this.#self.update(selfView(this.#call));
    // While reconnecting the others stay on screen, as they were: mostly they are back in a second.
    if (state === 'joined') this.#updatePeers();
    this.element.toggleAttribute('data-dimmed', state === 'reconnecting' || state === 'joining' && this.#tiles.size > 0);
    this.#layout();
  }

  speaking(levels) {
    for (const [id, tile] of this.#tiles) tile.speaking(levels.get(id) ?? false);
  }

  unblock() {
    for (const tile of this.#tiles.values()) if (tile.blocked) tile.unblock();
  }

  remove() {
    this.#observer.disconnect();
    for (const tile of [this.#self, ...this.#tiles.values()]) tile.remove();
    this.element.remove();
  }

  #updatePeers() {
    const { peers } = this.#call;
    const places = peers.flatMap((peer) => placesOf(peer).map((place) => ({ peer, ...place })));
    const present = new Set(places.map(({ id }) => id));
    for (const [id, tile] of this.#tiles) {
      if (present.has(id)) continue;
      tile.remove();
      this.#tiles.delete(id);
    }
    for (const place of places) this.#tile(place).update(viewOf(place));
    if (peers.length > 0) this.#invitation.remove();
    else if (!this.#invitation.isConnected) this.#rows.append(this.#invitation);
  }

  #tile({ id, peer, screen }) {
    if (!this.#tiles.has(id)) {
      const tile = new Tile(id, { owner: peer.name, screen, actions: this.#actions(peer.name, id), onBlocked: this.#onBlocked });
      this.#tiles.set(id, tile);
      // Others first: on a screen, one looks at them, not at oneself.
      this.#rows.insertBefore(tile.element, this.#self.element);
    }
    return this.#tiles.get(id);
  }

  // Consumers come and go, so they are looked up at the click.
  #actions(name, id) {
    const consumers = () => {
      const peer = this.#call.peers.find((candidate) => candidate.name === name);
      const place = peer && placesOf(peer).find((candidate) => candidate.id === id);
      return [place?.audio, place?.video].filter(Boolean);
    };
    return {
      pause: (kinds, on) => {
        for (const consumer of consumers()) {
          if (kinds.includes(consumer.kind)) this.#call.session.receiving.setPaused(consumer, on);
        }
      },
      profile: (value) => {
        for (const consumer of consumers()) {
          if (consumer.kind === 'video') this.#call.session.receiving.setProfile(consumer, value);
        }
      },
    };
  }

  #layout() {
    // Rounded down: half a pixel too much would wrap the row.
    const [width, height] = [this.element.clientWidth - 1, this.element.clientHeight - 1];
    if (width <= 0 || height <= 0) return;
    const gap = width < 600 ? 8 : 12;
    const { columns, tileWidth, tileHeight } = bestGrid(this.#rows.children.length, width, height, gap);
    const { style } = this.#rows;
    style.setProperty('--gap', `${gap}px`);
    style.setProperty('--tile-width', `${tileWidth}px`);
    style.setProperty('--tile-height', `${tileHeight}px`);
    style.setProperty('--row-width', `${columns * (tileWidth + gap) - gap}px`);
  }
}

function selfView({ media, displayName, session }) {
  const track = media.isOn('video') ? media.track('video') : null;
  const paused = (kind) => session?.sending?.producer(kind)?.remotelyPaused ?? false;
  return {
    name: plainText(displayName),
    audio: media.isOn('audio') && !paused('audio') ? {} : null,
    video: track && !paused('video') ? { track, supported: true } : null,
  };
}

function viewOf({ peer, screen, audio, video }) {
  const view = (consumer) => consumer && {
    track: consumer.track,
    supported: consumer.supported,
    off: consumer.remotelyPaused,
    pausedByMe: consumer.locallyPaused,
    simulcast: consumer.appData?.simulcast === true,
    quality: consumer.effectiveProfile ?? '',
    profile: consumer.preferredProfile,
  };
  const picture = view(video);
  return { name: nameOf(peer), screen, audio: view(audio), video: picture, quality: picture?.quality, profile: picture?.profile };
}
