/** Times as logs write them: a number, whatever its unit, or a date and time of ISO 8601. */
const ISO = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?$/;

/** The number, or milliseconds since 1970 for a date (UTC where it names no zone); NaN for anything else. Only the order counts. */
export function parseTime(text: string): number {
  const trimmed = text.trim();
  if (trimmed === '') return Number.NaN;
  const number = Number(trimmed);
  if (Number.isFinite(number)) return number;
  const date = ISO.exec(trimmed);
  if (date === null) return Number.NaN;
  const iso = trimmed.replace(' ', 'T');
  return Date.parse(iso.includes('T') && date[1] === undefined ? `${iso}Z` : iso);
}
