// Elements and controls. Names and predictions may contain markup, so text is added only as text nodes and
// attribute values: no module sets innerHTML.

const SVG = "http://www.w3.org/2000/svg";

// make("p", {class: "note", onclick: act}, "text", node): null children and attributes are left out.
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
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

// The page's security policy forbids style attributes but allows properties that a script sets.
export function setStyle(node, properties) {
  for (const [name, value] of Object.entries(properties)) node.style.setProperty(name, value);
}

export function byId(id) {
  return document.getElementById(id);
}

// ------------------------------------------------------------------ controls

export function labelled(text, control) {
  return make("label", {class: "control"}, make("span", {}, text), control);
}

// choice([[value, label], ...], act): a select that calls act(value) when it changes.
export function choice(options, act, attributes = {}) {
  const node = make("select", {...attributes, onchange: () => act(node.value)});
  for (const [value, label] of options) node.append(make("option", {value: String(value)}, label));
  return node;
}

export function textFilter(act, placeholder) {
  const node = make("input", {type: "search", placeholder, autocomplete: "off", spellcheck: "false"});
  node.addEventListener("input", () => act(node.value.trim().toLowerCase()));
  return node;
}

export function checkBox(text, act) {
  const box = make("input", {type: "checkbox", onchange: () => act(box.checked)});
  return make("label", {class: "control check"}, box, make("span", {}, text));
}

// A box that scrolls sideways, so that the page does not; focusable, so that keys can scroll it.
export function scrollBox(label, ...children) {
  return make("div", {class: "scroll", role: "region", tabindex: "0", "aria-label": label}, ...children);
}

// A bar whose length shows the number beside it.
export function bar(share) {
  const width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return make("span", {class: "bar", "aria-hidden": "true"}, make("span", {style: {width}}));
}

// Left of the middle for negative values, right for positive ones: the sign does not depend on colour alone.
export function signedBar(value, most) {
  const width = `${Math.min(1, Math.abs(value ?? 0) / (most || 1)) * 50}%`;
  const piece = make("span", {class: value < 0 ? "minus" : "plus", style: {width}});
  return make("span", {class: "bar signed", "aria-hidden": "true"}, piece);
}

export function numberText(text) {
  return make("span", {class: "number"}, text);
}

export function patch(colour) {
  return make("i", {class: "patch", "aria-hidden": "true", style: {"background-color": colour}});
}

// ------------------------------------------------------------------ the window

export function announce(text) {
  byId("live").textContent = text;
}

// act() once per frame after the window's width changed. Heights are ignored: a phone's address bar changes
// them.
export function followWidth(act) {
  let [width, waiting] = [window.innerWidth, false];
  window.addEventListener("resize", () => {
    if (waiting || window.innerWidth === width) return;
    waiting = true;
    requestAnimationFrame(() => {
      [width, waiting] = [window.innerWidth, false];
      act();
    });
  });
}
