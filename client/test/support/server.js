/** Starts the services in one process, on ports and in a folder of their own. */

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const target = resolve(root, process.env.CARGO_TARGET_DIR ?? 'target');
const program = process.env.PARLEY_PROGRAM ?? join(target, 'debug/parley');

/** Generous limits: a test's tabs are one user in a hurry. */
const usual = {
  KEEPALIVE_INTERVAL: '1s',
  FLOOD_LIMIT: 'off',
  RATE_LIMIT_READS: 'off',
  RATE_LIMIT_SENDS: 'off',
  RATE_LIMIT_OPENS: 'off',
  RATE_LIMIT_SUBMITS: 'off',
  DRAIN_SPREAD: '200ms',
  LOG: 'error',
};

/** @param {Record<string, string>} [settings] @param {string} [folder] An earlier server's. */
export async function startServer(settings = {}, folder = mkdtempSync(join(tmpdir(), 'parley-client-'))) {
  if (!existsSync(program)) throw new Error(`no program at ${program}: build it, or set PARLEY_PROGRAM`);
  const port0 = Object.fromEntries(
    ['INGRESS', 'PROC'].flatMap((name) =>
      [`${name}_LISTEN`, `${name}_INTERNAL_LISTEN`].map((key) => [key, '127.0.0.1:0']),
    ),
  );
  const child = spawn(program, {
    env: { ...process.env, ...usual, ...port0, DATA_DIR: folder, ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  let errors = '';
  child.stderr.on('data', (text) => (errors += text));
  const urls = await new Promise((resolve, reject) => {
    child.stdout.on('data', (text) => {
      said += text;
      const [, ingress] = said.match(/^ingress +(\S+)$/m) ?? [];
      const [, proc] = said.match(/^proc +(\S+)$/m) ?? [];
      if (ingress && proc) resolve({ ingress, proc });
    });
    child.on('exit', (code) => reject(new Error(`the server ended with ${code}: ${said}${errors}`)));
  });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  process.on('exit', () => child.kill('SIGKILL'));
  /** @param {NodeJS.Signals} signal */
  const end = async (signal) => {
    child.kill(signal);
    await ended;
  };
  return {
    ...urls,
    folder,
    end,
    stop: async () => {
      await end('SIGKILL');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
