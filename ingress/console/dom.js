/** @file Elements made of data: a text is always a text, never markup. */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * Makes an element. Functions are handlers (`onclick`), booleans are there or not, all else is an attribute.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...any} children Nodes and texts; what is empty is left out.
 * @returns {any}
 */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/**
 * The same for pictures.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...any} children
 * @returns {any}
 */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/** @param {Element} element @param {Record<string, any>} props @param {any[]} children */
function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (name === 'style')
      for (const [key, one] of Object.entries(value)) /** @type {any} */ (element).style.setProperty(key, `${one}`);
    else element.setAttribute(name, value === true ? '' : `${value}`);
  }
  put(element, children);
  return element;
}

/** Puts these into an element, in the place of what is there. @param {Element} element @param {...any} children */
export function put(element, ...children) {
  const kept = children
    .flat(3)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== '');
  element.replaceChildren(...kept.map((child) => (child instanceof Node ? child : `${child}`)));
}

/** Characters that show nothing and can turn the text around them. */
const INVISIBLE = /[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g;

/** A name for a place that takes text alone, such as a label. @param {string} name */
export const plain = (name) => name.replace(INVISIBLE, '');

/** An address as it is, with invisible characters spelt out. @param {string} url */
export const spelt = (url) => url.replace(INVISIBLE, encodeURIComponent);

/** A name whose direction does not reach the text around it. @param {string} name */
export const bdi = (name) => h('bdi', {}, name);

/**
 * Calls a handler until the page is left.
 * @param {EventTarget} target
 * @param {string} types Separated by blanks.
 * @param {(event: any) => void} handler
 * @param {AbortSignal} signal
 */
export function listen(target, types, handler, signal) {
  for (const type of types.split(' ')) target.addEventListener(type, handler, { signal });
}

/** Tells of something. @param {EventTarget} target @param {string} type @param {any} [detail] */
export function tell(target, type, detail) {
  target.dispatchEvent(new CustomEvent(type, { detail }));
}

/**
 * Calls at once, and then so often until the page is left.
 * @param {() => unknown} call
 * @param {number} everyMs
 * @param {AbortSignal} signal
 */
export function repeat(call, everyMs, signal) {
  const timer = setInterval(call, everyMs);
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });
  void call();
}

/**
 * Has a button do something that takes a while: it cannot be pressed meanwhile, and what fails is said.
 * @param {string | Node} label
 * @param {() => unknown} action
 * @param {Record<string, any>} [props]
 */
export function button(label, action, props = {}) {
  const element = h('button', { type: 'button', ...props }, label);
  element.addEventListener('click', () => busy(element, action));
  return element;
}

/**
 * A form whose fields come as an object; it stays as it is if the action fails.
 * @param {Record<string, any>} props
 * @param {(fields: Record<string, string>, form: HTMLFormElement) => unknown} action
 * @param {...any} children
 */
export function form(props, action, ...children) {
  const element = h('form', props, children);
  element.addEventListener('submit', (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const fields = /** @type {Record<string, string>} */ (Object.fromEntries(new FormData(element)));
    void busy(element.querySelector('[type=submit]'), () => action(fields, element));
  });
  return element;
}

/** @param {HTMLButtonElement} element @param {() => unknown} action */
async function busy(element, action) {
  if (element.ariaBusy === 'true') return;
  element.ariaBusy = 'true';
  try {
    await action();
  } catch (error) {
    complain(error);
  } finally {
    element.ariaBusy = 'false';
  }
}

/** Says what went wrong, where it can be seen on every page. @param {any} error */
export function complain(error) {
  if (error?.name === 'AbortError') return;
  const trace = error?.traceId ? ` (trace ${error.traceId})` : '';
  notice(`${error?.message ?? error}${trace}`, 'error');
}

/** Where that is said: it stays while pages come and go. */
export const notices = h('div', { class: 'notices', role: 'alert' });

/** @param {string} text @param {'info' | 'error'} [kind] */
export function notice(text, kind = 'info') {
  const element = h(
    'div',
    { class: `notice ${kind}` },
    h('span', {}, text),
    h('button', { type: 'button', 'aria-label': 'Dismiss', onclick: () => element.remove() }, '✕'),
  );
  notices.append(element);
  setTimeout(() => element.remove(), 8_000);
}

/** Asks before something that cannot be undone. @param {string} question @param {string} yes @returns {Promise<boolean>} */
export function confirmed(question, yes) {
  return new Promise((resolve) => {
    const dialog = h(
      'dialog',
      { 'aria-label': question, onclose: () => (dialog.remove(), resolve(dialog.returnValue === 'yes')) },
      h('p', {}, question),
      h(
        'div',
        { class: 'row end' },
        h('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'),
        h('button', { type: 'button', class: 'danger', onclick: () => dialog.close('yes') }, yes),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: 'long', year: 'numeric', month: 'long', day: 'numeric' });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

/** @param {string} at @param {'time' | 'day' | 'full'} [how] */
export function time(at, how = 'time') {
  const date = new Date(at);
  return h('time', { datetime: at, title: FULL.format(date) }, { time: TIME, day: DAY, full: FULL }[how].format(date));
}

/** @param {string} at @param {string} other */
export const sameDay = (at, other) => new Date(at).toDateString() === new Date(other).toDateString();
/** @param {number} count @param {string} one @param {string} [many] */
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : many}`;

/** A badge with initials, in a colour of the name's own. @param {string} name @param {string} [presence] */
export function avatar(name, presence) {
  const initials = name
    .split(/[\s._-]+/)
    .filter(Boolean)
    .slice(0, 2)
    .map((word) => [...word][0])
    .join('');
  const hue = [...name].reduce((sum, char) => (sum * 31 + (char.codePointAt(0) ?? 0)) % 360, 7);
  return h(
    'span',
    { class: 'avatar', 'aria-hidden': 'true', style: { '--hue': hue }, 'data-presence': presence },
    initials.toUpperCase(),
  );
}

/** A bar; without a fraction it says only that something goes on. @param {string} label @param {number | null} fraction */
export function progress(label, fraction) {
  return h('progress', { 'aria-label': label, max: 1, value: fraction });
}
