// pg-boss as its documentation has it for the most jobs a second, and with one job a fetch.
import pg from "pg";
import { PgBoss } from "pg-boss";
import { pause, serve } from "./driver.js";

const [connectionString] = process.argv.slice(2);
const QUEUE = "none";
const boss = new PgBoss({ connectionString, max: 24, schedule: false, useListenNotify: true });
boss.on("error", (error) => console.error(error));
await boss.start();
await boss.createQueue(QUEUE, { notify: true });
const pool = new pg.Pool({ connectionString, max: 1 });

const polling = { pollingIntervalSeconds: 0.5, notifyPollingIntervalSeconds: 0.5 };
const batches = { batchSize: 500, localConcurrency: 4, burstWhenBatchFull: true, ...polling };

await serve({
  fill: (jobs) => boss.insert(QUEUE, Array.from({ length: jobs }, () => ({ data: {} }))),
  add: () => boss.send(QUEUE, {}),
  async work(batch, done) {
    if (batch === false) return loops(done);
    const settings = batch ? batches : polling;
    await boss.work(QUEUE, settings, async (jobs) => jobs.forEach(() => done()));
    return () => boss.offWork(QUEUE, { wait: true });
  },
  async isEmpty() {
    const sql = "SELECT 1 FROM pgboss.job WHERE name = $1 AND state < 'completed' LIMIT 1";
    return (await pool.query(sql, [QUEUE])).rowCount === 0;
  },
});

// A worker of its own takes one job each half second, which says nothing of the queue: so they are fetched by hand.
function loops(done) {
  let goesOn = true;
  const loop = async () => {
    while (goesOn) {
      const [job] = await boss.fetch(QUEUE, { batchSize: 1 });
      if (job === undefined) {
        await pause(2);
        continue;
      }
      await boss.complete(QUEUE, job.id);
      done();
    }
  };
  const all = Promise.all(Array.from({ length: 20 }, loop));
  return async () => {
    goesOn = false;
    await all;
  };
}
