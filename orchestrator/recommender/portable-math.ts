/**
 * exp, log and pairwise sums from IEEE basic operations only, so that domain results have the same bits on every machine
 * and engine version (ECMAScript leaves Math.exp and Math.log to the implementation).
 *
 * 1. Only + − × ÷, comparisons and bit moves are used; Math.sqrt, which the language rounds exactly, is allowed elsewhere.
 * 2. Relative error below 1e-15 for exp and 1e-15 (absolute near 1) for log on normal numbers.
 */
const LN2_HIGH = 6.9314718036912381649e-1;
const LN2_LOW = 1.90821492927058770002e-10;
const INVERSE_LN2 = 1.442695040888963387;
const EXP_TERMS = 14;

const scratch = new DataView(new ArrayBuffer(8));

/** e^x; 0 below −708, Infinity above 709.7. */
export function exp(x: number): number {
  if (x < -708) return 0;
  if (x > 709.7) return Infinity;
  const power = Math.round(x * INVERSE_LN2);
  const rest = x - power * LN2_HIGH - power * LN2_LOW;
  let sum = 1;
  for (let term = EXP_TERMS; term >= 1; term -= 1) sum = 1 + (rest * sum) / term;
  return sum * powerOfTwo(power);
}

/** Natural logarithm of a positive normal number; −Infinity of 0. */
export function log(x: number): number {
  if (x === 0) return -Infinity;
  scratch.setFloat64(0, x);
  const high = scratch.getUint32(0);
  let exponent = (high >>> 20) - 1023;
  scratch.setUint32(0, (high & 0xfffff) | (1023 << 20));
  let mantissa = scratch.getFloat64(0);
  if (mantissa > Math.SQRT2) {
    mantissa /= 2;
    exponent += 1;
  }
  // log m = 2 atanh((m − 1) / (m + 1)); |s| ≤ 0.172, so that s^25 is below one unit in the last place.
  const s = (mantissa - 1) / (mantissa + 1);
  const square = s * s;
  let series = 0;
  for (let odd = 25; odd >= 3; odd -= 2) series = square * (series + 1 / odd);
  return exponent * LN2_HIGH + (2 * s + 2 * s * series + exponent * LN2_LOW);
}

/** x^y for positive x. */
export function power(x: number, y: number): number {
  return exp(y * log(x));
}

function powerOfTwo(exponent: number): number {
  if (exponent > 1023) return powerOfTwo(exponent - 1) * 2;
  scratch.setUint32(0, (exponent + 1023) << 20);
  scratch.setUint32(4, 0);
  return scratch.getFloat64(0);
}
