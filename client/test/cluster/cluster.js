/** Parley as it runs beyond one machine: the program `cluster`, which starts again whatever ends. */

import { spawn } from 'node:child_process';
import { appendFileSync, chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from '../support/until.js';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const target = resolve(root, process.env.CARGO_TARGET_DIR ?? 'target');
const program = process.env.PARLEY_CLUSTER ?? join(target, 'debug/cluster');
/** A start from nothing, a database's included. */
const START_MS = 40_000;

/** Whether this machine is said to have no cluster. */
export const isOff = program === 'off';

/** The pages of the tests, from the origin that they call. */
const PAGES = `
location ~ ^/(src|test|node_modules)/ {
    root ${JSON.stringify(join(root, 'client'))};
    types { text/html html; text/javascript js; text/css css; }
}
`;

/** @param {{user: string, name: string, token: string, roles: string[]}[]} users */
export async function startCluster(users) {
  if (!existsSync(program))
    throw new Error(`no program at ${program}: build cluster, ingress and proc, or set PARLEY_CLUSTER to it or to off`);
  const home = mkdtempSync(join(tmpdir(), 'parley-cluster-'));
  // Where we are root PostgreSQL is not, and has to find its way in.
  chmodSync(home, 0o711);
  const folder = join(home, 'cluster');
  const file = join(home, 'users.json');
  writeFileSync(file, JSON.stringify(users));
  const child = spawn(program, ['--folder', folder, '--listen', '127.0.0.1:0', '--set', `AUTH_USERS_FILE=${file}`], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // A backtrace says nothing of what a cluster lacks.
    env: { ...process.env, RUST_BACKTRACE: '0' },
  });
  let said = '';
  for (const output of [child.stdout, child.stderr]) output.on('data', (text) => (said += text));
  /** @type {number | null | undefined} */
  let code;
  const ended = new Promise((resolve) => child.on('exit', (status) => resolve((code = status))));
  // Its own children end with it.
  const abandon = () => child.kill('SIGKILL');
  process.on('exit', abandon);
  /** Waits until the cluster has said something, and returns what. @param {RegExp} what */
  const says = async (what, limitMs = START_MS) => {
    await until(() => what.test(said) || code !== undefined, () => said, limitMs);
    const match = said.match(what);
    if (!match) throw new Error(`the cluster ended with ${code}: ${said}`);
    return match;
  };
  /** Asks a part to end, once, and waits until it has and is ready again. @param {string} part */
  const restart = async (part) => {
    const [, pid] = await says(new RegExp(`^ +${part} +process (\\d+)`, 'm'));
    process.kill(Number(pid), 'SIGTERM');
    const [, how] = await says(new RegExp(`^${part} has ended \\((.*)\\)$`, 'm'));
    if (how !== 'exit status: 0') throw new Error(`${part} ended with ${how}`);
    await says(new RegExp(`^${part} is running again$`, 'm'));
  };
  const stop = async () => {
    child.kill('SIGTERM');
    await ended;
    process.off('exit', abandon);
    rmSync(home, { recursive: true, force: true });
    if (code !== 0) throw new Error(`the cluster ended with ${code}: ${said}`);
  };
  try {
    const [, url] = await says(/Parley is at (\S+)\. /);
    await says(/stops all of it/);
    appendFileSync(join(folder, 'nginx/site/server.conf'), PAGES);
    await restart('nginx');
    return { url, restart, stop };
  } catch (error) {
    await stop().catch(() => {});
    throw error;
  }
}
