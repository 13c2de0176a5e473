// Short news (who came and went), seen by everybody and read aloud by screen readers.

import { h } from './dom.js';

const SHOWN_MS = 4000;

/**
 * Shows the newest news only, in the header's height, so that it covers nobody. `text` is about `name`, which another
 * person may have chosen: it stands apart, or letters from right to left would turn our own words round.
 */
export function toast({ name = '', text }) {
  const item = h('p', { class: 'toast' }, ...(name ? [h('bdi', { class: 'toast__name' }, name), h('span', {}, text)] : [text]));
  document.getElementById('toasts').replaceChildren(item);
  setTimeout(() => item.remove(), SHOWN_MS);
}

/** Old news says nothing about a new page. */
export function clearToasts() {
  document.getElementById('toasts').replaceChildren();
}
