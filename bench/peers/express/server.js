// Event streams on Express with what is usually kept about them: limits an address and a session, a heartbeat and an
// idle timer each, counters. Prints its address. POST /events sends the body to every stream.
import { randomUUID } from "node:crypto";
import express from "express";

const limits = {
  address: Number(process.env.SSE_MAX_CONN_PER_IP ?? 2),
  session: Number(process.env.SSE_MAX_CONN_PER_SESSION ?? 1),
};
const HEARTBEAT_MS = 25_000;
const IDLE_MS = 5 * 60_000;

const streams = new Map();
const held = { address: new Map(), session: new Map() };
const counters = { opened: 0, closed: 0, refused: 0, broadcasts: 0, sent: 0 };

function take(kind, key) {
  const count = held[kind].get(key) ?? 0;
  if (count >= limits[kind]) return false;
  held[kind].set(key, count + 1);
  return true;
}

function release(kind, key) {
  const count = held[kind].get(key) - 1;
  if (count > 0) held[kind].set(key, count);
  else held[kind].delete(key);
}

class EventStream {
  constructor(req, res, session) {
    this.id = randomUUID();
    this.address = req.ip;
    this.session = session;
    this.agent = req.get("user-agent") ?? "";
    this.openedAt = this.activeAt = Date.now();
    this.sent = 0;
    this.res = res;
    res.set({
      "Content-Type": "text/event-stream",
      "Cache-Control": "no-cache",
      Connection: "keep-alive",
      "X-SSE-Connection-Id": this.id,
    });
    res.flushHeaders();
    this.heartbeat = setInterval(() => this.write(": ping\n\n"), HEARTBEAT_MS);
    this.idle = setTimeout(() => {
      this.write('event: bye\ndata: {"reason":"idle_timeout"}\n\n');
      this.end();
    }, IDLE_MS);
    req.on("close", () => this.end());
    streams.set(this.id, this);
    counters.opened += 1;
  }

  write(frame) {
    this.res.write(frame);
    this.activeAt = Date.now();
  }

  send(event) {
    // As each stream of the sketch does for itself.
    this.write(`data: ${JSON.stringify(event)}\n\n`);
    this.sent += 1;
  }

  end() {
    if (!streams.delete(this.id)) return;
    clearInterval(this.heartbeat);
    clearTimeout(this.idle);
    release("address", this.address);
    if (this.session) release("session", this.session);
    counters.closed += 1;
    this.res.end();
  }
}

const app = express();
app.disable("x-powered-by");

app.get("/streams", (req, res) => {
  const session = req.get("x-session-id");
  if (!take("address", req.ip)) {
    counters.refused += 1;
    return res.status(429).json({ error: "too many streams from this address" });
  }
  if (session && !take("session", session)) {
    release("address", req.ip);
    counters.refused += 1;
    return res.status(429).json({ error: "too many streams of this session" });
  }
  new EventStream(req, res, session);
});

app.post("/events", express.text(), (req, res) => {
  const event = { type: "message", text: req.body };
  for (const stream of streams.values()) stream.send(event);
  counters.broadcasts += 1;
  counters.sent += streams.size;
  res.status(204).end();
});

app.get("/stats", (_req, res) => res.json({ open: streams.size, ...counters }));

const server = app.listen(0, "127.0.0.1", 4096, () => {
  const { address, port } = server.address();
  console.log(`${address}:${port}`);
});
// A sender that pauses keeps its connection.
server.keepAliveTimeout = 0;
