// graphile-worker as its documentation has it for the most jobs a second, and as it is by default.
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";
import { serve } from "./driver.js";

const [connectionString] = process.argv.slice(2);
const logger = new Logger(() => () => {});
const pool = new pg.Pool({ connectionString, max: 25 });
const utils = await makeWorkerUtils({ pgPool: pool, logger });
await utils.migrate();

const batches = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };

await serve({
  fill: (jobs) => utils.addJobs(Array.from({ length: jobs }, () => ({ identifier: "none", payload: {} }))),
  add: () => utils.addJob("none", {}),
  async work(batch, done) {
    const worker = { connectionString, maxPoolSize: 25, concurrentJobs: 24, ...(batch ? batches : {}) };
    const preset = { worker: { ...worker, logger } };
    const runner = await run({ preset, noHandleSignals: true, taskList: { none: async () => done() } });
    return () => runner.stop();
  },
  async isEmpty() {
    return (await pool.query("SELECT 1 FROM graphile_worker._private_jobs LIMIT 1")).rowCount === 0;
  },
});
