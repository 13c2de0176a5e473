// Short news (who came and went), seen by everybody and read aloud by screen readers.

import { h } from './dom.js';

const SHOWN_MS = 4000;
const MOST = 3;

export function toast(text) {
  const list = document.getElementById('toasts');
  const item = h('p', { class: 'toast' }, text);
  list.append(item);
  while (list.children.length > MOST) list.firstElementChild.remove();
  setTimeout(() => item.remove(), SHOWN_MS);
}

/** Old news says nothing about a new page. */
export function clearToasts() {
  document.getElementById('toasts').replaceChildren();
}
