/** @file The text of an event stream, as events. */

import { createParser } from 'eventsource-parser';

/**
 * Returns what takes a stream's text, in parts that end anywhere.
 * @param {(event: {event?: string, data: string, id?: string}) => void} onEvent
 * @param {(ms: number) => void} onRetry
 */
export function streamParser(onEvent, onRetry) {
  const parser = createParser((parsed) => (parsed.type === 'event' ? onEvent(parsed) : onRetry(parsed.value)));
  let rest = '';
  let ended = '';
  // Line by line: in longer texts the parser looks for each end from the beginning, and after a return for more.
  return (/** @type {string} */ text) => {
    const lines = (ended + text).split(/\r\n?|\n/).slice(ended.length);
    lines[0] = rest + /** @type {string} */ (lines[0]);
    rest = /** @type {string} */ (lines.pop());
    ended = text.endsWith('\r') ? '\r' : '';
    for (const line of lines) parser.feed(`${line}\n`);
  };
}
