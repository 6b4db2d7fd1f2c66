/** A proxy that breaks things, and serves the pages of the browser tests from the same origin. */

import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { build } from 'esbuild';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const TYPES = { js: 'text/javascript', css: 'text/css', html: 'text/html; charset=utf-8' };

/** @param {{ingress: string, proc: string}} target Where requests go; can be changed. */
export async function startProxy(target) {
  /** Streams that are open on the client's side. @type {Set<http.ServerResponse>} */
  const streams = new Set();
  const sockets = new Set();
  const proxy = {
    target,
    url: '',
    streams,
    /** Every stream that was asked for, with its headers. */
    opens: [],
    /** Connections are cut at once. */
    down: false,
    /** Bytes of streams stay here, as with a connection that is dead and does not know. */
    stalled: false,
    /** Answers of streams come in one piece, at their end. */
    buffered: false,
    /** One byte at a time. */
    trickle: false,
    /** What answers streams instead. @type {{status: number, headers?: any, body?: any} | null} */
    refuse: null,
    delayMs: 0,
    mend: () =>
      Object.assign(proxy, {
        down: false,
        stalled: false,
        buffered: false,
        trickle: false,
        refuse: null,
        delayMs: 0,
        opens: [],
      }),
    cut: () => streams.forEach((response) => response.destroy()),
    stop: async () => {
      sockets.forEach((socket) => socket.destroy());
      await new Promise((resolve) => server.close(resolve));
    },
  };
  const server = http.createServer(async (request, response) => {
    if (proxy.down) return request.socket.destroy();
    const path = request.url.split('?')[0];
    if (/^\/(src|test|node_modules)\//.test(path)) return file(path, response);
    const isStream = request.method === 'GET' && /^\/(sse\/|stream\/|api\/jobs\/stream$)/.test(path);
    if (isStream) proxy.opens.push({ url: request.url, lastEventId: request.headers['last-event-id'] });
    if (isStream && proxy.refuse) {
      response.writeHead(proxy.refuse.status, { 'Content-Type': 'application/json', ...proxy.refuse.headers });
      return response.end(JSON.stringify(proxy.refuse.body ?? {}));
    }
    if (proxy.delayMs) await new Promise((resolve) => setTimeout(resolve, proxy.delayMs));
    const base = path.startsWith('/api/integrations') ? proxy.target.proc : proxy.target.ingress;
    const up = http.request(
      base + request.url,
      { method: request.method, headers: request.headers, agent: false },
      (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        if (!isStream || answer.statusCode !== 200) return answer.pipe(response);
        streams.add(response);
        if (!proxy.buffered) response.flushHeaders();
        answer.on('data', (chunk) => {
          if (proxy.stalled || proxy.buffered) return;
          if (proxy.trickle) for (const byte of chunk) response.write(Buffer.of(byte));
          else response.write(chunk);
        });
        answer.on('end', () => response.end());
        answer.on('error', () => response.destroy());
      },
    );
    up.on('error', () => response.destroy());
    response.on('close', () => (streams.delete(response), up.destroy()));
    request.pipe(up);
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  proxy.url = `http://127.0.0.1:${server.address().port}`;
  return proxy;
}

async function file(path, response) {
  try {
    const bytes = path.endsWith('/bundle.js') ? await bundle() : await readFile(root + path);
    const policy = path.includes('csp') ? { 'Content-Security-Policy': "default-src 'self'" } : {};
    response.writeHead(200, { 'Content-Type': TYPES[path.split('.').at(-1)] ?? 'text/plain', ...policy });
    response.end(bytes);
  } catch {
    response.writeHead(404).end();
  }
}

/** The page of the tests without its import map, which a strict policy does not take. */
async function bundle() {
  const page = {
    contents: await readFile(root + 'test/browser/page.js', 'utf8').then((text) =>
      text.replaceAll("'/src/", "'./src/"),
    ),
    resolveDir: root,
  };
  const { outputFiles } = await build({ stdin: page, bundle: true, write: false, format: 'esm' });
  return outputFiles[0].contents;
}
