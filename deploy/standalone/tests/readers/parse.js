// Reads a stream's bytes from stdin in pieces of random sizes, the largest given, and prints what a parser makes of it.
import { createParser } from "eventsource-parser";

const largest = Number(process.argv[2]);
const decoder = new TextDecoder("utf-8", { fatal: true });
const print = (line) => console.log(JSON.stringify(line));
const parser = createParser({
  onEvent: ({ id, event, data }) => print({ id, event, data }),
  onRetry: (retry) => print({ retry }),
  onError: (error) => {
    throw error;
  },
});
const parts = [];
for await (const part of process.stdin) parts.push(part);
const bytes = Buffer.concat(parts);
for (let at = 0; at < bytes.length; ) {
  const size = 1 + Math.floor(Math.random() * largest);
  parser.feed(decoder.decode(bytes.subarray(at, at + size), { stream: true }));
  at += size;
}
