// Text that other people wrote, made safe to stand in a sentence of ours.

// Marks that change the direction of what follows: embeddings, overrides, isolates and direction marks.
const DIRECTION = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
// Line breaks and other control characters.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g;

/** The text without marks that would reverse the page's own words. Letters that are written from right to left stay. */
export function plainText(text) {
  return text.replace(DIRECTION, '').replace(CONTROL, ' ').trim();
}
