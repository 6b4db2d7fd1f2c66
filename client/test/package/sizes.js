/** What a page has to load, minified and compressed. The first and the last limit are promised: 4 and 9 kB. */

import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const LIMITS = [
  ['@parley/client/sse', 'export * from "./src/sse.js"', 4_096],
  [
    'a chat page: ChatApi, PersistentChatConnection',
    'export { ChatApi, PersistentChatConnection } from "./src/index.js"',
    7_680,
  ],
  ['all but React', 'export * from "./src/index.js"; export * from "./src/ui.js"', 9_216],
];

/** @param {string} resolveDir */
export async function sizes(resolveDir) {
  for (const [name, contents, limit] of LIMITS) {
    const options = { bundle: true, minify: true, format: 'esm', target: 'es2022', write: false };
    const { outputFiles } = await build({ ...options, stdin: { contents, resolveDir } });
    const bytes = gzipSync(outputFiles[0].contents, { level: 9 }).length;
    console.log(`${name}: ${bytes} of ${limit} bytes`);
    if (bytes > limit) throw new Error(`${name} is too large`);
  }
}
