// The page during the call: header, banner, grid, toolbar.

import { plainText } from '../plaintext.js';
import { h, setText } from './dom.js';
import { Grid } from './grid.js';
import { brand } from './icons.js';
import { shareDialog } from './share.js';
import { Banner, Status } from './status.js';
import { Toolbar } from './toolbar.js';

export class CallPage {
  element;
  #call;
  #grid;
  #toolbar;
  #status = new Status();
  #banner;
  #people = h('span', { class: 'bar__people', 'data-testid': 'people' });
  #soundBlocked = false;

  constructor(call) {
    this.#call = call;
    const { media } = call;
    const dialog = shareDialog(call.room);
    this.#grid = new Grid(call, () => this.#block());
    this.#toolbar = new Toolbar(media, { onShare: () => dialog.showModal(), onLeave: () => call.leave() });
    this.#banner = new Banner({
      onRetry: () => retryDevices(media),
      onSound: this.#unblock,
    });
    this.element = h('div', { class: 'call' },
      h('header', { class: 'bar' }, brand(), h('h1', { class: 'bar__room', title: plainText(call.room) }, h('bdi', {}, plainText(call.room))), this.#people, this.#status.element),
      this.#banner.element,
      h('main', { class: 'stage' }, this.#grid.element),
      h('footer', { class: 'foot' }, this.#toolbar.element),
      dialog);
    call.addEventListener('change', this.#update);
    media.addEventListener('change', this.#unblock);
    document.addEventListener('keydown', this.#key);
    this.#update();
  }

  speaking(levels) {
    this.#grid.speaking(levels);
  }

  remove() {
    this.#call.removeEventListener('change', this.#update);
    this.#call.media.removeEventListener('change', this.#unblock);
    document.removeEventListener('keydown', this.#key);
    this.#grid.remove();
    this.element.remove();
  }

  #key = (event) => this.#toolbar.key(event);

  #update = () => {
    const call = this.#call;
    this.#grid.update();
    this.#toolbar.update();
    this.#status.update(call);
    this.#banner.update(call, this.#soundBlocked);
    if (call.state === 'joined') {
      const count = call.peers.length + 1;
      setText(this.#people, count === 1 ? 'Only you' : `${count} people`);
    }
  };

  #block() {
    this.#soundBlocked = true;
    this.#update();
  }

  // After a click, and after the microphone came on: a page that captures may play.
  #unblock = () => {
    if (!this.#soundBlocked) return;
    this.#soundBlocked = false;
    this.#grid.unblock();
    this.#update();
  };
}

function retryDevices(media) {
  for (const kind of ['audio', 'video']) if (!media.track(kind)) media.wanted[kind] = true;
  void media.start();
}
