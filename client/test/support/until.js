/** Waits for something to be true. */
export async function until(holds, about = () => '', limitMs = 6_000) {
  const deadline = Date.now() + limitMs;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`it did not come: ${holds} ${about()}`);
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
}
