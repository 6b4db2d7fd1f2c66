/** A tab of the tests: follows a project and keeps what its handler was given. */

import { ChatApi, PersistentChatConnection } from '/src/index.js';
import '/src/ui.js';

const query = new URLSearchParams(location.search);
const project_id = query.get('project');
const [ingressUrl, procUrl] = (query.get('services') ?? ',').split(',');
const api = new ChatApi({ ingressUrl, procUrl, token: query.get('token') ?? 'dev-ada' });
const seen = [];
const gaps = [];
const failures = [];
const connection = new PersistentChatConnection({
  api,
  project_id,
  since: query.get('since'),
  stream: { openTimeoutMs: Number(query.get('openTimeoutMs')) || undefined },
  onMessage: ({ type, message }) => type === 'message.created' && seen.push(message.text),
});
connection.on('gap', (gap) => gaps.push(gap));
connection.on('failure', (error) => failures.push(String(error)));
document.querySelector('parley-connection-status').connection = connection;
window.tab = { api, connection, seen, gaps, failures, project_id };
await connection.connect();
