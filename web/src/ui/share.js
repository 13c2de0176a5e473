// Inviting others: the room's link, to copy or to hand to another app.

import { shareLink } from '../identity.js';
import { h, setText } from './dom.js';
import { icon, setIcon } from './icons.js';

const COPIED_MS = 2000;

/** The link with its buttons; `id` keeps the test ids of two of them apart. */
export function linkBox(room, id) {
  const link = shareLink(room);
  const field = h('input', {
    class: 'link__field', readOnly: true, value: link, 'aria-label': 'Link to this call', 'data-testid': `${id}-link`,
    on: { focus: () => field.select() },
  });
  const label = h('span', {}, 'Copy link');
  const copyButton = h('button', {
    type: 'button', class: 'button button--primary', 'data-testid': `${id}-copy`,
    on: { click: () => copy(link, field, copyButton, label) },
  }, icon('copy'), label);
  const buttons = h('div', { class: 'link__buttons' }, copyButton);
  if (navigator.share) {
    buttons.append(h('button', {
      type: 'button', class: 'button',
      // Rejects when the user changes their mind, which is no error.
      on: { click: () => navigator.share({ title: 'Join my call', url: link }).catch(() => {}) },
    }, 'Share…'));
  }
  return h('div', { class: 'link' }, field, buttons);
}

async function copy(link, field, button, label) {
  try {
    await navigator.clipboard.writeText(link);
  } catch {
    // No clipboard on insecure pages: the older way still works there.
    field.focus();
    field.select();
    document.execCommand('copy');
  }
  setIcon(button, 'check');
  setText(label, 'Copied');
  setTimeout(() => {
    setIcon(button, 'copy');
    setText(label, 'Copy link');
  }, COPIED_MS);
}

export function shareDialog(room) {
  const dialog = h('dialog', { class: 'dialog', 'aria-labelledby': 'share-title' },
    h('h2', { id: 'share-title' }, 'Invite people'),
    h('p', {}, 'Whoever has this link can join the call. Nothing to install.'),
    linkBox(room, 'share'),
    h('form', { method: 'dialog' }, h('button', { class: 'dialog__close', 'aria-label': 'Close' }, icon('close'))),
  );
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
  return dialog;
}
