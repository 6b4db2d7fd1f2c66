// Follows a URL with the npm package `eventsource`, as its documentation says: one line of JSON for each event, each error,
// and the end. `count` streams at once.
import { EventSource } from "eventsource";

const [url, token, count] = process.argv.slice(2);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
let open = Number(count);
for (let number = 0; number < Number(count); number += 1) {
  const source = new EventSource(url.replace("NUMBER", number), {
    fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } }),
  });
  const show = ({ type, lastEventId, data }) => print({ number, name: type, id: lastEventId, data });
  for (const name of ["message", "reset", "server_shutdown", "bye"]) source.addEventListener(name, show);
  source.addEventListener("open", () => print({ number, name: "open" }));
  source.addEventListener("error", ({ code }) => {
    const isClosed = source.readyState === EventSource.CLOSED;
    print({ number, name: isClosed ? "stopped" : "error", code });
    if (isClosed) open -= 1;
    if (open === 0) process.exit(0);
  });
}
// Its timers do not keep a process alive.
setInterval(() => {}, 1_000);
