/** @file Events of a stream, with the parts of a snapshot put together. */

/** @import { ChatEvent, Job } from './wire.js' */

/**
 * Tells `handler` of each application event, and of the greeting as of a place in the log; of a `job.snapshot`, which comes in
 * parts, once it has all jobs.
 * @param {import('./sse-client.js').SSEClient} stream
 * @param {(entry: import('./log.js').Entry) => void} handler
 */
export function onEntries(stream, handler) {
  /** @type {Job[]} */
  let jobs = [];
  stream.on('message', ({ id, data }) => {
    /** @type {ChatEvent} */
    const event = JSON.parse(data);
    if (event.type === 'hello') {
      // A stream that was cut off between parts begins with all of them again.
      jobs = [];
      return handler({ id });
    }
    if (event.jobs) event.jobs = jobs = jobs.concat(event.jobs);
    if (!event.more) handler({ id, event });
  });
}
