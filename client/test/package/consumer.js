/** Builds somebody else's page with the package as it would be published, without the network. */

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** @param {string} root @param {string} tarball */
export function consumer(root, tarball) {
  const folder = mkdtempSync(join(tmpdir(), 'parley-consumer-'));
  const run = (program, ...args) =>
    execFileSync(program, args, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
  try {
    const modules = join(folder, 'node_modules');
    const there = join(modules, '@parley/client');
    mkdirSync(there, { recursive: true });
    run('tar', '-xzf', tarball, '-C', there, '--strip-components=1');
    for (const name of ['eventsource-parser', 'react', '@types', 'vite', 'typescript'])
      symlinkSync(join(root, 'node_modules', name), join(modules, name));
    cpSync(join(root, 'test/consumer/main.ts'), join(folder, 'main.ts'));
    writeFileSync(
      join(folder, 'index.html'),
      '<!doctype html><title>x</title><script type="module" src="main.ts"></script>',
    );
    const compilerOptions = {
      strict: true,
      noEmit: true,
      target: 'ES2022',
      module: 'ESNext',
      moduleResolution: 'bundler',
      types: ['vite/client'],
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['main.ts'] }));
    run(process.execPath, join(root, 'node_modules/typescript/bin/tsc'), '-p', folder);
    run(process.execPath, join(root, 'node_modules/vite/bin/vite.js'), 'build', '--logLevel', 'error');
    console.log(`a page of TypeScript and Vite: ${readdirSync(join(folder, 'dist/assets')).join(', ')}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
