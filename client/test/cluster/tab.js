/** A tab that chats: it sends now and then, and keeps what it was told, what its dot showed and how its sends ended. */

import { ChatApi, PersistentChatConnection } from '/src/index.js';
import '/src/ui.js';

const { project, since, token } = Object.fromEntries(new URLSearchParams(location.search));

/** The answers to each send, in their order, by its key. */
const answers = {};
const failures = [];
const api = new ChatApi({
  token,
  fetch: async (url, request) => {
    const key = request.headers['Idempotency-Key'];
    if (!key) return fetch(url, request);
    const kept = (answers[key] ??= []);
    try {
      const response = await fetch(url, request);
      kept.push(response.status);
      return response;
    } catch (error) {
      kept.push(String(error));
      throw error;
    }
  },
});

const events = [];
const gaps = [];
const connection = new PersistentChatConnection({ api, project_id: project, since });
connection.on('event', (event) => events.push(event));
connection.on('gap', (gap) => gaps.push(gap));

/** What the dot showed, and since when. */
const shown = [];
const dot = document.querySelector('parley-connection-status');
dot.connection = connection;
// After the dot's own.
connection.on('status', ({ state, reason }) => {
  const { color } = dot.dataset;
  const last = shown.at(-1);
  if (last?.color !== color || last.state !== state || last.reason !== reason)
    shown.push({ color, state, reason, at: Date.now() });
});

let isOver = false;
let chatting = Promise.resolve();

async function chat(name, everyMs, firstMs) {
  await new Promise((resolve) => setTimeout(resolve, firstMs));
  for (let count = 0; !isOver; count++) {
    await api.sendMessage(project, { text: `${name} #${count}` }).catch((error) => failures.push(String(error)));
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

window.tab = {
  connection,
  events,
  start: (...how) => void (chatting = chat(...how)),
  /** Ends the sends; resolves when the last one is answered. */
  stop: () => ((isOver = true), chatting),
  told: () => ({ events, gaps, shown, answers, failures }),
};
await connection.connect();
