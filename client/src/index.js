/** @file `@parley/client`. */

export * from './sse.js';
export { ChatApi } from './chat-api.js';
