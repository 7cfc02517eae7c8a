// Building blocks. A report holds names and predictions that may hold markup, so text reaches the page only
// as text nodes and attribute values: nothing here or below sets innerHTML.

const SVG = "http://www.w3.org/2000/svg";

// make("p", {class: "note", onclick: act}, "text", node): null children and attributes are left out.
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") setStyle(node, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(
    ...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

// The page's policy forbids style attributes, which markup could smuggle in; properties set here are allowed.
function setStyle(node, properties) {
  for (const [name, value] of Object.entries(properties)) node.style.setProperty(name, value);
}

function byId(id) {
  return document.getElementById(id);
}

// ------------------------------------------------------------------ numbers

const UNKNOWN = "–";

function fixed(value, digits = 3) {
  if (value === null || value === undefined) return UNKNOWN;
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

// With a sign, as a difference is read.
function signed(value, digits = 3) {
  if (value === null || value === undefined) return UNKNOWN;
  return value > 0 && Number(value.toFixed(digits)) !== 0 ? `+${fixed(value, digits)}` : fixed(value, digits);
}

function probability(value) {
  if (value === null || value === undefined) return UNKNOWN;
  return value !== 0 && value < 0.001 ? value.toExponential(1).replace("e-", "e−") : value.toFixed(3);
}

// Three or four digits that count, for values of any size.
function brief(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) {
    return Number(value.toPrecision(3)).toExponential().replace(/-/g, "−");
  }
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function counted(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

// A name too long for its room loses its middle: names of one family begin alike and differ at the end.
// share: of the letters kept, those at the beginning.
function shortened(name, kept, share = 0.5) {
  const letters = Array.from(name);
  if (letters.length <= kept) return name;
  const head = Math.floor(kept * share);
  return `${letters.slice(0, head).join("")}…${letters.slice(letters.length - kept + head).join("")}`;
}

// Or its beginning, and what does not fit of its end.
function shortenedFrom(start, name, kept) {
  const letters = Array.from(name).slice(start);
  return `…${letters.slice(0, kept).join("")}${letters.length > kept ? "…" : ""}`;
}

function sharedStart(names) {
  const [first, ...others] = names.map((name) => Array.from(name));
  const end = first.findIndex((letter, at) => others.some((other) => other[at] !== letter));
  return end < 0 ? first.length : end;
}

// The mean of the known values, or null if none is.
function mean(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

// ------------------------------------------------------------------ controls

function labelled(text, control) {
  return make("label", {class: "control"}, make("span", {}, text), control);
}

// choice([[value, label], ...], act): a select that calls act(value) when it changes.
function choice(options, act, attributes = {}) {
  const node = make("select", {...attributes, onchange: () => act(node.value)});
  for (const [value, label] of options) node.append(make("option", {value: String(value)}, label));
  return node;
}

function textFilter(act, placeholder) {
  const node = make("input", {type: "search", placeholder, autocomplete: "off", spellcheck: "false"});
  node.addEventListener("input", () => act(node.value.trim().toLowerCase()));
  return node;
}

function checkBox(text, act) {
  const box = make("input", {type: "checkbox", onchange: () => act(box.checked)});
  return make("label", {class: "control check"}, box, make("span", {}, text));
}

// A box that scrolls sideways by itself, so that the page never does; focusable, to be scrolled by keys.
function scrollBox(label, ...children) {
  return make("div", {class: "scroll", role: "region", tabindex: "0", "aria-label": label}, ...children);
}

// A bar whose length says the number beside it once more.
function bar(share) {
  const width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return make("span", {class: "bar", "aria-hidden": "true"}, make("span", {style: {width}}));
}

// Left of the middle for negative values, right for positive ones: the side tells the sign, not the colour
// alone.
function signedBar(value, most) {
  const width = `${Math.min(1, Math.abs(value ?? 0) / (most || 1)) * 50}%`;
  const piece = make("span", {class: value < 0 ? "minus" : "plus", style: {width}});
  return make("span", {class: "bar signed", "aria-hidden": "true"}, piece);
}
