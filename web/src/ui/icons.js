// Line icons on a 24-pixel grid, drawn in the colour of the text around them.

const SVG = 'http://www.w3.org/2000/svg';
const SLASH = 'M4 4l16 16';

const PATHS = {
  mic: 'M12 4a3 3 0 0 1 3 3v4a3 3 0 0 1-6 0V7a3 3 0 0 1 3-3z M6 11a6 6 0 0 0 12 0 M12 17v3',
  micOff: `M15 9.5V7a3 3 0 0 0-5.7-1.3 M9 9v2a3 3 0 0 0 4.4 2.6 M6 11a6 6 0 0 0 9.6 4.8 M18 11a6 6 0 0 1-.3 1.9 M12 17v3 ${SLASH}`,
  camera: 'M5 7h8a2 2 0 0 1 2 2v6a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V9a2 2 0 0 1 2-2z M15 11l6-3v8l-6-3',
  cameraOff: `M9.5 7H13a2 2 0 0 1 2 2v3.5 M14.5 16.4a2 2 0 0 1-1.5.6H5a2 2 0 0 1-2-2V9a2 2 0 0 1 1.6-1.9 M15 11l6-3v8l-3-1.5 ${SLASH}`,
  leave: 'M3.5 14.5c-1-1-1-2.6 0-3.5C8.400 7 15.600 7 20.500 11c1 .9 1 2.500 0 3.500l-.8.8a1 1 0 0 1-1.3.100l-2-1.400a1 1 0 0 1-.4-.9l.1-1.700c-2.600-.8-5.600-.8-8.200 0l.1 1.700a1 1 0 0 1-.4.900l-2 1.400a1 1 0 0 1-1.300-.1z',
  link: 'M10 14a4 4 0 0 0 5.700 0l3-3A4 4 0 0 0 13 5.300l-1 1 M14 10a4 4 0 0 0-5.700 0l-3 3a4 4 0 0 0 5.700 5.700l1-1',
  copy: 'M10 9h8a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1h-8a1 1 0 0 1-1-1v-9a1 1 0 0 1 1-1z M6 15H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1h8a1 1 0 0 1 1 1v1',
  check: 'M5 12.500l4.500 4.500L19 7.500',
  pause: 'M9 6v12 M15 6v12',
  play: 'M8 5.500v13l10.500-6.500z',
  sound: 'M4 10v4h3l4.500 4V6L7 10z M15 9a4 4 0 0 1 0 6 M17.500 6.500a8 8 0 0 1 0 11',
  soundOff: 'M4 10v4h3l4.500 4V6L7 10z M15.500 9.500l5 5 M20.500 9.500l-5 5',
  video: 'M4 6h16v12H4z M10.500 9.500v5l4-2.500z',
  videoOff: `M9 6h11v11 M17 18H4V6.500 ${SLASH}`,
  more: 'M6 12h.01 M12 12h.01 M18 12h.01',
  close: 'M6 6l12 12 M18 6L6 18',
  warning: 'M12 5l8.500 14h-17z M12 10.500v4 M12 17h.01',
};

export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  const path = document.createElementNS(SVG, 'path');
  for (const [key, value] of [['viewBox', '0 0 24 24'], ['aria-hidden', 'true'], ['class', 'icon']]) {
    svg.setAttribute(key, value);
  }
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  svg.dataset.icon = name;
  return svg;
}

/** Changes what a button or label shows, without touching it when it shows that already. */
export function setIcon(element, name) {
  const old = element.querySelector(':scope > .icon');
  if (old?.dataset.icon === name) return;
  if (old) old.replaceWith(icon(name));
  else element.prepend(icon(name));
}

/** The mark of the product: a room seen from above. */
export function brand() {
  const link = document.createElement('span');
  link.className = 'brand';
  const image = document.createElement('img');
  image.src = 'icon.svg';
  image.alt = '';
  link.append(image, 'Plenary');
  return link;
}
