// Names of other people cannot turn the page's own text round.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { plainText } from '../src/plaintext.js';

test('marks of direction are taken out', () => {
  assert.equal(plainText('\u202Eevil\u202C \u2067a\u2069b\u200F'), 'evil ab');
});

test('letters from right to left and emoji stay', () => {
  assert.equal(plainText('שלום 👩‍👧'), 'שלום 👩‍👧');
});

test('line breaks become spaces', () => {
  assert.equal(plainText('a\r\nb\u2028c'), 'a b c');
});
