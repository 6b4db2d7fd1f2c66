// A page in TypeScript, as somebody else would write it: it must compile in strict mode and be built by Vite.
import { ChatApi, HttpError, PersistentChatConnection, SSEClient, streamAnswer } from '@parley/client';
import { useChatConnection } from '@parley/client/react';
import { SSEClient as Alone } from '@parley/client/sse';
import { FakeServer } from '@parley/client/testing';
import { ParleyConnectionStatus } from '@parley/client/ui';
import '@parley/client/ui.css';

const api = new ChatApi({ ingressUrl: 'http://127.0.0.1:8010', token: async () => 'dev-ada' });
const connection = new PersistentChatConnection({
  api,
  project_id: 'p',
  onMessage: ({ type, message }) => console.log(type, message?.text),
});
connection.on('gap', ({ reason }) => console.log(reason));
connection.on('message.created', ({ message }) => console.log(message?.author));
const state: 'idle' | 'connecting' | 'open' | 'waiting' | 'blocked' | 'closed' = connection.status.state;
const positional = new PersistentChatConnection('p', (event) => console.log(event.type));
const { mode } = positional.getConnectionInfo();

export async function main(): Promise<string> {
  await connection.connect();
  const { id } = await api.sendMessage('p', { text: 'hello', reply_to: 'm' }).catch((error: unknown) => {
    if (error instanceof HttpError) console.log(error.status, error.code, error.retryAfterMs);
    throw error;
  });
  const answer = streamAnswer({ api, project_id: 'p', query: 'q' });
  for await (const text of answer) console.log(text.length);
  const { sources = [] } = await answer.done;
  for await (const { data } of new SSEClient('/sse/stream', { method: 'GET', silenceMs: 1_000 })) console.log(data);
  // @ts-expect-error a message has a text
  api.sendMessage('p', {});
  // @ts-expect-error there is no such state
  if (connection.status.state === 'broken') return '';
  // @ts-expect-error there is no such role
  api.setMember('p', 'grace', 'king');
  // @ts-expect-error a wait is a number
  new Alone('/x', { silenceMs: 'long' });
  return [
    id,
    state,
    mode,
    sources[0]?.snippet,
    new ParleyConnectionStatus().texts.open,
    new FakeServer().streams,
    useChatConnection,
  ].join();
}
void main();
