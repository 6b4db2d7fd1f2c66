// What both drivers have in common: a command a line on standard input, an answer a line on standard output. Times are in
// milliseconds; what a queue needs before its first job is there when the first answer comes.
import readline from "node:readline";

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// A queue has: fill(jobs), add(), isEmpty(), and work(batch, done), which returns what stops it; `batch` is undefined
// where it is to wait for single jobs.
export async function serve(queue) {
  const commands = {
    // Enqueues with nobody at work.
    async fill({ jobs, bulk }) {
      await fill(queue, jobs, bulk);
    },
    // Works off what is there.
    async drain({ jobs, batch }) {
      await until(queue, jobs, batch, () => {});
    },
    // Enqueues beside the work.
    async through({ jobs, batch, bulk }) {
      await until(queue, jobs, batch, () => fill(queue, jobs, bulk));
    },
    // From the call that adds a job to its start, one at a time.
    async starts({ samples, batch }) {
      let started;
      const stop = await queue.work(batch, () => started());
      const waited = [];
      for (let sample = 0; sample < samples; sample += 1) {
        await pause(20);
        const begun = new Promise((resolve) => (started = resolve));
        const asked = performance.now();
        await queue.add();
        await begun;
        waited.push(performance.now() - asked);
      }
      await stop();
      waited.sort((one, other) => one - other);
      return { p50: waited[Math.floor(samples * 0.5)], p99: waited[Math.floor(samples * 0.99)] };
    },
  };
  console.log("{}");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { command, ...options } = JSON.parse(line);
    const [began, before] = [performance.now(), process.cpuUsage()];
    const answer = await commands[command](options);
    const ms = performance.now() - began;
    const cpu = process.cpuUsage(before);
    console.log(JSON.stringify({ ms, cpu_us: cpu.user + cpu.system, ...answer }));
  }
  process.exit(0);
}

// In bulk: many a call, two calls at a time. Else one a call, from 32 callers.
async function fill(queue, jobs, bulk) {
  const [callers, each] = bulk ? [2, 1000] : [32, 1];
  let left = jobs;
  const caller = async () => {
    while (left > 0) {
      const some = Math.min(each, left);
      left -= some;
      await (bulk ? queue.fill(some) : queue.add());
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
}

async function until(queue, jobs, batch, beside) {
  let left = jobs;
  let ended;
  const all = new Promise((resolve) => (ended = resolve));
  const stop = await queue.work(batch, () => {
    left -= 1;
    if (left === 0) ended();
  });
  await Promise.all([beside(), all]);
  // The last ends have to be in the database too.
  while (!(await queue.isEmpty())) await pause(2);
  // Closing is not counted for anybody, but it keeps the next turn clean.
  await stop();
}
