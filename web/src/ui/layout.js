// How many columns make the tiles largest.

const MIN_TILE = 60;

// [width / height, how much such an area is worth]: the more of a wide picture is cropped, the less.
const WIDE = [[16 / 9, 1], [4 / 3, 0.93]];
const TALL = [...WIDE, [1, 0.88], [3 / 4, 0.84]];

/** The best grid for `count` tiles in `width` × `height` pixels: {columns, tileWidth, tileHeight}. */
export function bestGrid(count, width, height, gap) {
  let best = null;
  for (const [ratio, worth] of width < height ? TALL : WIDE) {
    for (let columns = 1; columns <= count; columns += 1) {
      const rows = Math.ceil(count / columns);
      const cellWidth = (width - gap * (columns - 1)) / columns;
      const cellHeight = (height - gap * (rows - 1)) / rows;
      const tileWidth = Math.max(MIN_TILE, Math.floor(Math.min(cellWidth, cellHeight * ratio)));
      const tileHeight = Math.floor(tileWidth / ratio);
      const score = tileWidth * tileHeight * worth;
      if (!best || score > best.score) best = { columns, tileWidth, tileHeight, score };
    }
  }
  return best;
}
