import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Backoff } from '../../src/sse.js';

const unit = fc.double({ min: 0, max: 1, noNaN: true });

test('waits are within their bounds, at the cap too', () => {
  fc.assert(
    fc.property(fc.nat(20), unit, fc.nat(60_000), (attempt, chance, floorMs) => {
      const backoff = new Backoff({ random: () => chance });
      backoff.attempt = attempt;
      const highest = Math.min(29_000, 1_000 * 2 ** attempt);
      const waitMs = backoff.next();
      expect(waitMs).toBeGreaterThanOrEqual(highest / 2);
      expect(waitMs).toBeLessThanOrEqual(30_000);
      expect(backoff.next(floorMs)).toBeGreaterThanOrEqual(floorMs);
    }),
  );
});

test('a thousand clients that fail together come back spread, first and last', () => {
  for (const attempt of [0, 12]) {
    const waits = Array.from({ length: 1_000 }, () => {
      const backoff = new Backoff();
      backoff.attempt = attempt;
      return Math.floor(backoff.next() / 100);
    });
    const counts = Object.values(
      Object.groupBy
        ? Object.groupBy(waits, String)
        : waits.reduce((all, one) => ({ ...all, [one]: [...(all[one] ?? []), 1] }), {}),
    );
    // In no tenth of a second more than a quarter of them.
    expect(Math.max(...counts.map(({ length }) => length))).toBeLessThan(250);
    expect(new Set(waits).size).toBeGreaterThan(10);
  }
});

test('success starts again with short waits', () => {
  const backoff = new Backoff({ random: () => 1 });
  const first = backoff.next();
  for (let n = 0; n < 9; n++) backoff.next();
  backoff.reset();
  expect(backoff.next()).toBe(first);
});
