// What went wrong, in words for people. The codes are those of the server's error table.

export const INSECURE =
  'This page was opened over plain http, and browsers give camera and microphone only to https pages. '
  + 'You can still join to watch and listen; to be seen and heard, open the page with https://';

const ANSWERS = {
  400: 'The server did not understand this page. Reloading it may help.',
  401: 'This server asks for an invitation, and there is none (or an outdated one) in the link you used.',
  403: 'You are not allowed into this room.',
  409: 'Someone with exactly this identity is already in the room.',
  413: 'The server refused a message as too large.',
  429: 'The server is busy and asked us to slow down.',
  500: 'The server had an internal error.',
  503: 'No media server is available right now.',
};

const temporaryCodes = new Set([429, 503]);

/** True if asking again later can help: the server said so, or it did not answer in time. */
export function isTemporary(error) {
  return temporaryCodes.has(error.code) || /timeout/i.test(error.message);
}

export function serverWords(error) {
  if (ANSWERS[error.code]) return ANSWERS[error.code];
  if (/timeout/i.test(error.message)) return 'The server did not answer in time.';
  if (/not supported/i.test(error.message)) return 'This browser cannot take part: a codec of the room is missing.';
  return `Something went wrong (${error.message}).`;
}

/**
 * Why the server closed the connection for good: {kind, words}. Kinds are `replaced`, `ended` (for everybody), `removed`
 * (only me), `unreachable`; `refused` is one that was never in the room.
 */
export function endOf({ code, reason }) {
  if (/replaced/i.test(reason)) {
    return { kind: 'replaced', words: 'You joined this call from another window or device, so this one has left it.' };
  }
  if (/room closed/i.test(reason)) return { kind: 'ended', words: 'The call was ended for everyone.' };
  if (/peer closed/i.test(reason)) return { kind: 'removed', words: 'You were removed from the call.' };
  if (code === 4000) return { kind: 'ended', words: `The server ended the call${reason ? `: ${reason}` : ''}.` };
  return { kind: 'unreachable', words: 'The server could not be reached for a while.' };
}

const DEVICES = { audio: 'microphone', video: 'camera' };

/** Why `kinds` (audio, video) could not be captured. */
export function deviceWords(error, kinds) {
  const what = kinds.map((kind) => DEVICES[kind]).join(' and ');
  const listen = 'You can take part without.';
  switch (error.name) {
    case 'NotAllowedError':
      return `The browser may not use your ${what}. Allow it with the icon beside the address, then try again. ${listen}`;
    case 'NotFoundError':
    case 'OverconstrainedError':
      return `No ${kinds.map((kind) => DEVICES[kind]).join(' or ')} was found. ${listen}`;
    case 'NotReadableError':
    case 'AbortError':
      return `Your ${what} cannot be opened. Perhaps another program is using it. ${listen}`;
    default:
      return `Your ${what} cannot be used (${error.message || error.name}). ${listen}`;
  }
}
