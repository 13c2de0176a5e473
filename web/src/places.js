// Which tiles a remote peer has: one of its own, and one more for each further picture or sound it sends.

const SCREENS = new Set(['screen', 'screenshare', 'display', 'desktop']);

/** True if the sender says that the producer is a screen: `appData.source` or `appData.share`. */
export function isScreen({ appData }) {
  return SCREENS.has(String(appData?.source ?? '').toLowerCase()) || appData?.share === true;
}

/**
 * The places of a peer {name, consumers}, the main one first: [{id, screen, audio, video}], where `audio` and `video` are
 * consumers or null. Every consumer has a place. A screen never takes the main one; its sound goes with its picture.
 * `id` is the peer's name, with the number of the consumer for further places, which keep it as long as they last.
 */
export function placesOf({ name, consumers }) {
  const of = (kind, screen) => consumers.filter((consumer) => consumer.kind === kind && isScreen(consumer) === screen);
  const [video = null, ...videos] = of('video', false);
  const [audio = null, ...audios] = of('audio', false);
  const screenSounds = of('audio', true);
  const further = [
    ...of('video', true).map((screen) => ({ screen: true, video: screen, audio: screenSounds.shift() ?? null })),
    ...videos.map((other) => ({ screen: false, video: other, audio: audios.shift() ?? null })),
    ...screenSounds.map((sound) => ({ screen: true, video: null, audio: sound })),
    ...audios.map((sound) => ({ screen: false, video: null, audio: sound })),
  ];
  return [
    { id: name, screen: false, audio, video },
    ...further.map((place) => ({ id: `${name}/${(place.video ?? place.audio).id}`, ...place })),
  ];
}
