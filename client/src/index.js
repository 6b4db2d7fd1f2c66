/** @file `@parley/client`. */

export * from './sse.js';
export { ChatApi } from './chat-api.js';
export { AnswerStream, streamAnswer } from './answer.js';
export { JobsStream } from './jobs-stream.js';
export { LeaderElector } from './leader.js';
export { TabBus } from './tab-bus.js';
export { PersistentChatConnection } from './connection.js';
