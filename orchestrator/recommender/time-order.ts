/**
 * Stable order of events by time: a radix sort over the bits of the times, so that ten million take a second.
 *
 * 1. Equal times keep their order (−0 and 0 are equal); the order of the result is total and depends on nothing else.
 * 2. Times are numbers, infinite ones included, never NaN: importers refuse those.
 */
const DIGIT_BITS = 16;
const DIGITS = 1 << DIGIT_BITS;
const SIGN_BIT = 0x80000000;

/** Positions in `times`, earliest first. */
export function orderByTime(times: Float64Array): Uint32Array {
  const order = new Uint32Array(times.length);
  for (let i = 0; i < order.length; i += 1) order[i] = i;
  if (isAscending(times)) return order;
  const { low, high } = sortableBits(times);
  let sorted: Uint32Array = order;
  let spare: Uint32Array = new Uint32Array(times.length);
  for (const half of [low, high]) {
    for (const shift of [0, DIGIT_BITS]) {
      const counts = digitCounts(half, shift);
      // All events share the digit: nothing would move. Whole seconds leave most of the low bits so.
      if (counts.some((count) => count === times.length)) continue;
      let start = 0;
      const next = counts.map((count) => (start += count) - count);
      for (const event of sorted) {
        const digit = ((half[event] ?? 0) >>> shift) & (DIGITS - 1);
        const at = next[digit] ?? 0;
        spare[at] = event;
        next[digit] = at + 1;
      }
      [sorted, spare] = [spare, sorted];
    }
  }
  return sorted;
}

function isAscending(times: Float64Array): boolean {
  for (let i = 1; i < times.length; i += 1) {
    if ((times[i] ?? 0) < (times[i - 1] ?? 0)) return false;
  }
  return true;
}

/** Unsigned halves whose order is that of the numbers: of a negative one all bits are turned, of another the sign. */
function sortableBits(times: Float64Array): { low: Uint32Array; high: Uint32Array } {
  const low = new Uint32Array(times.length);
  const high = new Uint32Array(times.length);
  const view = new DataView(new ArrayBuffer(8));
  for (let i = 0; i < times.length; i += 1) {
    // Adding 0 makes 0 of −0.
    view.setFloat64(0, (times[i] ?? 0) + 0);
    const top = view.getUint32(0);
    const negative = top >= SIGN_BIT;
    high[i] = negative ? ~top : top ^ SIGN_BIT;
    low[i] = negative ? ~view.getUint32(4) : view.getUint32(4);
  }
  return { low, high };
}

function digitCounts(half: Uint32Array, shift: number): Uint32Array {
  const counts = new Uint32Array(DIGITS);
  for (const bits of half) {
    const digit = (bits >>> shift) & (DIGITS - 1);
    counts[digit] = (counts[digit] ?? 0) + 1;
  }
  return counts;
}
