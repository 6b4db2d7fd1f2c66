/** `npm test`: types, package, sizes, then every test. */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { consumer } from './package/consumer.js';
import { sizes } from './package/sizes.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const run = (program, ...args) => execFileSync(program, args, { cwd: root, stdio: 'inherit' });
const tool = (path, ...args) => run(process.execPath, join(root, 'node_modules', path), ...args);

tool('typescript/bin/tsc');
// The console has no build of its own, and no other check of its types.
tool('typescript/bin/tsc', '-p', 'tsconfig.console.json');
console.log('types: no complaint');
const folder = mkdtempSync(join(tmpdir(), 'parley-pack-'));
try {
  execFileSync('npm', ['pack', '--silent', '--pack-destination', folder], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const tarball = join(folder, 'parley-client-0.1.0.tgz');
  tool('publint/src/cli.js', 'run', tarball, '--strict');
  tool('@arethetypeswrong/cli/dist/index.js', tarball, '--profile', 'esm-only', '--exclude-entrypoints', 'ui.css');
  consumer(root, tarball);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
await sizes(root);
tool('vitest/vitest.mjs', 'run');
