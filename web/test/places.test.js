// Which tiles a peer has.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isScreen, placesOf } from '../src/places.js';

const consumer = (id, kind, source) => ({ id, kind, appData: source ? { source } : {} });

function shown(...consumers) {
  return placesOf({ name: 'bob', consumers }).map(({ id, screen, audio, video }) => [id, screen, audio?.id, video?.id]);
}

test('camera and microphone share the main tile', () => {
  assert.deepEqual(shown(consumer(1, 'audio', 'microphone'), consumer(2, 'video', 'camera')), [['bob', false, 1, 2]]);
});

test('a peer that sends nothing has a tile', () => {
  assert.deepEqual(shown(), [['bob', false, undefined, undefined]]);
});

test('a screen has a tile of its own, whichever was produced first', () => {
  const screen = consumer(5, 'video', 'screen');
  const camera = consumer(2, 'video', 'camera');
  const expected = [['bob', false, undefined, 2], ['bob/5', true, undefined, 5]];
  assert.deepEqual(shown(screen, camera), expected);
  assert.deepEqual(shown(camera, screen), expected);
});

test('a screen without a camera does not take the main tile', () => {
  assert.deepEqual(shown(consumer(5, 'video', 'screen')), [
    ['bob', false, undefined, undefined], ['bob/5', true, undefined, 5],
  ]);
});

test('the sound of a screen is played in its tile', () => {
  assert.deepEqual(shown(consumer(1, 'audio'), consumer(5, 'video', 'screen'), consumer(6, 'audio', 'screen')), [
    ['bob', false, 1, undefined], ['bob/5', true, 6, 5],
  ]);
});

test('a second picture and a second sound without a source are shown and heard', () => {
  assert.deepEqual(shown(consumer(1, 'audio'), consumer(2, 'video'), consumer(3, 'video'), consumer(4, 'audio')), [
    ['bob', false, 1, 2], ['bob/3', false, 4, 3],
  ]);
});

test('app data of any type is no screen', () => {
  for (const appData of [undefined, null, 'screen', 7, { source: { screen: 1 } }]) assert.equal(isScreen({ appData }), false);
});
