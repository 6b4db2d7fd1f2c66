/** @file A user's jobs as they go on. */

import { onEntries } from './entries.js';
import { randomName } from './random-name.js';
import { Reporter } from './status.js';

/** @import { Job } from './wire.js' */

/**
 * Keeps `jobs` as the server has them. While no stream is to be had, as with a third tab at one address, it polls.
 * Where a project's connection is open anyway, its `include: 'jobs'` is one stream less.
 * @extends {Reporter<{job: Job, event: import('./wire.js').ChatEvent}>}
 */
export class JobsStream extends Reporter {
  /** The jobs that were seen, by id. @type {Map<string, Job>} */
  jobs = new Map();
  #api;

  /**
   * @param {{api: import('./chat-api.js').ChatApi, scope?: 'all', pollMs?: number}} options `scope: 'all'` is for
   *   admins.
   */
  constructor({ api, scope, pollMs = 5_000 }) {
    super();
    this.#api = api;
    this.stream = api.stream(
      '/api/jobs/stream',
      { stream_id: randomName(), scope },
      {
        pollMs: pollMs * (1 + Math.random()),
        poll: async (signal) => {
          const { jobs } = await api.jobs({ limit: 200 });
          if (!signal.aborted) jobs.forEach((job) => this.#keep(job));
        },
      },
    );
    onEntries(this.stream, ({ event }) => {
      if (!event) return;
      if (event.job) this.#keep(event.job);
      if (event.jobs) void this.#snapshot(event.jobs);
      this.emit('event', event);
    });
    this.stream.on('status', (status) => this.set(status));
  }

  /** @returns {this} */
  start() {
    this.stream.start();
    return this;
  }
  stop() {
    this.stream.stop();
  }

  /** @param {Job} job */
  #keep(job) {
    if (JSON.stringify(this.jobs.get(job.id)) === JSON.stringify(job)) return;
    this.jobs.set(job.id, job);
    this.emit('job', job);
  }

  /** Takes over all that has not ended; what is missing among it ended meanwhile. @param {Job[]} unfinished */
  async #snapshot(unfinished) {
    unfinished.forEach((job) => this.#keep(job));
    for (const { id, finished_at } of [...this.jobs.values()]) {
      if (finished_at || unfinished.some((job) => job.id === id)) continue;
      await this.#api.job(id).then(
        (job) => this.#keep(job),
        () => this.jobs.delete(id),
      );
    }
  }
}
