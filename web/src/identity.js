// Names: who I am, and which room. The address bar wins over what was remembered.

const encoder = new TextEncoder();
const MAX_BYTES = 128;
const NAME_KEY = 'plenary.name';

const MOODS = 'amber bright calm clear coral early fair gentle golden green happy hazel kind late light lively lucky '
  .concat('mellow misty open quiet rapid silver still sunny tidal warm wild').split(' ');
const PLACES = 'arbour bay bridge brook canyon cove delta dune fjord forest garden glade grove harbour hill island lagoon '
  .concat('lake meadow orchard pier pond ridge river shore spring valley willow').split(' ');

/** What the page's address asks for. */
export function wishes(search = location.search) {
  const params = new URLSearchParams(search);
  return {
    room: params.get('room')?.trim() || '',
    name: params.get('name')?.trim() || '',
    peer: params.get('peer') || '',
    token: params.get('token') || '',
    autojoin: params.get('autojoin') === '1',
  };
}

export function randomRoom() {
  return `${pick(MOODS)}-${pick(PLACES)}-${10 + random(90)}`;
}

/** Unique in the room even if two people have the same name; 1-128 bytes. */
export function peerNameFor(displayName) {
  const slug = displayName.normalize('NFKD').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '');
  const suffix = Array.from({ length: 6 }, () => random(36).toString(36)).join('');
  return `${slug.slice(0, 40) || 'guest'}-${suffix}`;
}

/** Why `text` cannot be a room or peer name, or an empty string. */
export function nameFault(text) {
  if (!text) return 'Please enter a name.';
  return encoder.encode(text).length > MAX_BYTES ? 'This name is too long.' : '';
}

export function shareLink(room) {
  const url = new URL(location.pathname, location.href);
  url.searchParams.set('room', room);
  return url.href;
}

/** So that reload and the address bar's copy lead back here; other parameters stay (kiosks, tests). */
export function showRoomInAddress(room) {
  const url = new URL(location.href);
  url.searchParams.set('room', room);
  history.replaceState(null, '', url);
}

export function rememberedName() {
  try {
    return localStorage.getItem(NAME_KEY) || '';
  } catch {
    return ''; // storage can be forbidden; then nothing is remembered
  }
}

export function rememberName(name) {
  try {
    localStorage.setItem(NAME_KEY, name);
  } catch {
    // see above
  }
}

function random(below) {
  return crypto.getRandomValues(new Uint32Array(1))[0] % below;
}

function pick(words) {
  return words[random(words.length)];
}
