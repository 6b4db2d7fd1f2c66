// Follows a URL with the npm package `eventsource-client`: one line of JSON for each event, each connection, and the end.
import { createEventSource } from "eventsource-client";

const [url, token] = process.argv.slice(2);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
let failed;
const client = createEventSource({
  url,
  headers: { Authorization: `Bearer ${token}` },
  fetch: async (input, init) => {
    const response = await fetch(input, init);
    failed = response.status === 200 ? undefined : response.status;
    return response;
  },
  onConnect: () => print({ name: "open" }),
  onMessage: ({ event, id, data }) => print({ name: event ?? "message", id, data }),
  onScheduleReconnect: () => print({ name: "error", code: failed }),
  onDisconnect: () => {
    if (failed !== 204) return;
    print({ name: "stopped", code: failed });
    process.exit(0);
  },
});
process.on("SIGTERM", () => client.close());
