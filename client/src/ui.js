/** @file `@parley/client/ui`: `<parley-connection-status>`, a dot that says how the connection is. */

import { IDLE } from './status.js';

/** @import { ConnectionStatus } from './status.js' */

/** What it says; each text can be replaced. `{s}` is how many seconds are left. */
const TEXTS = {
  idle: 'Not connected',
  connecting: 'Connecting…',
  open: 'Connected',
  waiting: 'Reconnecting in {s} s',
  offline: 'No network. Next try in {s} s',
  blocked: 'Messages come a little later. Next try in {s} s',
  too_many_connections: 'Too many chat windows open on other devices. Messages come a little later.',
  closed: 'Disconnected',
  auth: 'Please sign in again',
  forbidden: 'You may not follow this project',
  gone: 'This project is gone',
  follower: 'This tab is receiving messages from another window.',
  retry: 'Retry now',
};

/** Of what is not here, nothing is to be expected. @type {Record<string, string>} */
const COLORS = { connecting: 'yellow', open: 'green', waiting: 'orange', blocked: 'orange' };

/** Pages without a DOM can import this too. @type {typeof HTMLElement} */
const Base = globalThis.HTMLElement ?? class {};

/** Shows the `status` of the `connection` it is given, and looks as `ui.css` says. */
export class ParleyConnectionStatus extends Base {
  /** @type {Partial<typeof TEXTS>} */
  texts = {};
  /**
   * @type {{status: ConnectionStatus, on(type: 'status', handler: () => void): () => void, retryNow?(): void} | null}
   */
  #connection = null;
  /** @type {(() => void) | undefined} */
  #undo;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  /** @type {any[] | undefined} */
  #parts;

  get connection() {
    return this.#connection;
  }
  set connection(connection) {
    this.#undo?.();
    this.#connection = connection;
    this.#undo = connection?.on('status', this.#show);
    this.#show();
  }

  connectedCallback() {
    this.#timer = setInterval(this.#show, 1_000);
    this.#show();
  }
  disconnectedCallback() {
    clearInterval(this.#timer);
  }

  #show = () => {
    const { state, role, reason, retryAt, stale } = this.#connection?.status ?? IDLE;
    const texts = /** @type {Record<string, string>} */ ({ ...TEXTS, ...this.texts });
    const seconds = Math.max(0, Math.ceil((Number(retryAt) - Date.now()) / 1_000));
    const [text, note, retry] = (this.#parts ??= this.#build());
    // What is expected and soon over does not alarm.
    this.dataset.color = stale || reason === 'draining' ? 'yellow' : (COLORS[state] ?? 'grey');
    set(text, texts[/** @type {string} */ (reason)] ?? texts[state], seconds);
    set(note, role === 'follower' && state !== 'closed' ? texts.follower : '');
    set(retry, texts.retry);
    retry.hidden = !this.#connection?.retryNow || !(retryAt || state === 'closed');
  };

  /** Makes the text, the note and the button. */
  #build() {
    const [, text, note, retry] = ['dot', 'text', 'note', 'retry'].map((name) => {
      /** @type {any} */
      const part = document.createElement(name === 'retry' ? 'button' : 'span');
      part.className = `parley-${name}`;
      this.append(part);
      return part;
    });
    text.role = 'status';
    retry.type = 'button';
    retry.onclick = () => this.#connection?.retryNow?.();
    return [text, note, retry];
  }
}

/**
 * What stays the same is not set: it would be said to screen readers again.
 * @param {HTMLElement} element
 * @param {any} text
 * @param {number} [seconds]
 */
function set(element, text, seconds) {
  text = text.replace('{s}', seconds);
  if (element.textContent !== text) element.textContent = text;
}

globalThis.customElements?.define('parley-connection-status', ParleyConnectionStatus);
