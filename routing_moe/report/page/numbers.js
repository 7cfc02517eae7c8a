// Numbers and names as text; means.

export const UNKNOWN = "–";

export function fixed(value, digits = 3) {
  if (value === null || value === undefined) return UNKNOWN;
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

// With a sign, for differences.
export function signed(value, digits = 3) {
  if (value === null || value === undefined) return UNKNOWN;
  return value > 0 && Number(value.toFixed(digits)) !== 0 ? `+${fixed(value, digits)}` : fixed(value, digits);
}

export function probability(value) {
  if (value === null || value === undefined) return UNKNOWN;
  return value !== 0 && value < 0.001 ? value.toExponential(1).replace("e-", "e−") : value.toFixed(3);
}

// Three or four significant digits, for values of any size.
export function brief(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) {
    return Number(value.toPrecision(3)).toExponential().replace(/-/g, "−");
  }
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

export function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

export function counted(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

// A name cut in the middle to `kept` letters, because similar names differ at the end. share: of the kept
// letters at the beginning.
export function shortened(name, kept, share = 0.5) {
  const letters = Array.from(name);
  if (letters.length <= kept) return name;
  const head = Math.floor(kept * share);
  return `${letters.slice(0, head).join("")}…${letters.slice(letters.length - kept + head).join("")}`;
}

// A name cut before `start`, and at the end if it is still too long.
export function shortenedFrom(start, name, kept) {
  const letters = Array.from(name).slice(start);
  return `…${letters.slice(0, kept).join("")}${letters.length > kept ? "…" : ""}`;
}

export function sharedStart(names) {
  const [first, ...others] = names.map((name) => Array.from(name));
  const end = first.findIndex((letter, at) => others.some((other) => other[at] !== letter));
  return end < 0 ? first.length : end;
}

// The mean of the known values, null if none is known.
export function mean(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

export function largest(values) {
  return values.reduce((most, value) => Math.max(most, Math.abs(value ?? 0)), 0);
}
