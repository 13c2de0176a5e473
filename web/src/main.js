// Puts the page together: the join page, the call, and the way back.

import './styles/style.css';

import { isDeviceSupported } from 'mediasoup-client';

import { Call } from './call.js';
import { peerNameFor, randomRoom, rememberName, showRoomInAddress, wishes } from './identity.js';
import { expose } from './inspect.js';
import { Media, mayPreview } from './media.js';
import { plainText } from './plaintext.js';
import { watchSpeaking } from './speaking.js';
import { CallPage } from './ui/callpage.js';
import { JoinPage } from './ui/join.js';
import { clearToasts, toast } from './ui/toasts.js';

const UNSUPPORTED = 'This browser cannot take part in calls. A current Firefox, Chrome, Edge or Safari can.';

const root = document.getElementById('app');
const wished = wishes();
const media = new Media();
const call = new Call(media);
let page = null;

function show(next) {
  page?.remove();
  clearToasts();
  page = next;
  root.append(page.element);
}

function showJoin(message = '', ending = '') {
  document.title = 'Plenary';
  const address = wishes();
  const wishesNow = call.displayName ? { ...address, name: call.displayName } : address;
  show(new JoinPage({ media, wishes: wishesNow, message, ending, onJoin: join }));
  // Not after a call: somebody who has just left does not expect the camera to come on again.
  if (call.state === 'idle') void mayPreview().then((may) => may && page instanceof JoinPage && media.start());
}

async function join({ name, room }) {
  rememberName(name);
  showRoomInAddress(room);
  document.title = `${plainText(room)} · Plenary`;
  // A name fixed by the address is for one person in one window; everybody else gets a new one each time.
  call.start({ room, displayName: name, peerName: wished.peer || peerNameFor(name), token: wished.token });
  show(new CallPage(call));
  // Asked for while we connect: a person who answers the browser's question late can already listen.
  await media.start();
}

call.addEventListener('announce', ({ detail }) => toast(detail));
call.addEventListener('change', () => {
  if (call.active || !(page instanceof CallPage)) return;
  if (call.state === 'ended') showJoin(call.problem, call.ending);
  else showJoin('', 'left');
});
// The others should see at once that the window is gone, not when the server misses it.
window.addEventListener('pagehide', () => call.leave());

expose(call);
watchSpeaking(call, (levels) => page instanceof CallPage && page.speaking(levels));

if (!isDeviceSupported()) showJoin(UNSUPPORTED);
else if (wished.autojoin) void join({ name: wished.name || 'Guest', room: wished.room || randomRoom() });
else showJoin();
