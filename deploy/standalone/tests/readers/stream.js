// Prints a stream as it comes, decompressed the way browsers do it.
const [url, token] = process.argv.slice(2);
const response = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
if (response.headers.get("content-encoding") !== "gzip") throw new Error("it is not compressed");
for await (const part of response.body) process.stdout.write(part);
