// Colours of the canvas and of signed cells; all others live in style.css. One hue for weights, blue to
// orange for signed values: readable with red-green colour blindness.

import {make} from "./dom.js";
import {WHOLE} from "./model.js";

export const HEAT = {
  light: ["#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b"],
  dark: ["#17202b", "#1b3147", "#1d4466", "#1f5a8a", "#2f77b0", "#5397cf", "#82b7e4", "#b3d5f3", "#e3f1ff"],
};
const SIGNED = {
  light: ["#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7", "#fee0b6", "#fdb863", "#e08214", "#b35806"],
  dark: ["#8cc6f5", "#4f9bd6", "#2c6ba0", "#1e4364", "#1d232b", "#573a17", "#8f5a16", "#cc8328", "#fbb865"],
};
export const LINES = {
  light: {grid: "rgba(60, 70, 85, 0.28)", border: "#20242b"},
  dark: {grid: "rgba(190, 200, 215, 0.28)", border: "#e6e9ee"},
};

let printing = false;
export const painters = [];

export function scheme() {
  if (printing) return "light";
  const forced = document.documentElement.dataset.theme;
  return forced || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

// Calls `paint` now and whenever the scheme changes.
export function painted(paint) {
  painters.push(paint);
  paint();
}

function repaint() {
  for (const paint of painters) paint();
}

export function themeButton() {
  const button = make("button", {type: "button", id: "theme", class: "quiet"});
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = scheme() === "dark" ? "light" : "dark";
    repaint();
  });
  painted(() => {
    button.textContent = scheme() === "dark" ? "Light colours" : "Dark colours";
  });
  return button;
}

export function followScheme() {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
}

// Paper is white, even if the screen is dark.
export function paintForPaper(on) {
  printing = on;
  repaint();
}

function channels(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

// The colour at `share` (0 to 1) of the way through evenly spaced stops, as [red, green, blue].
function along(stops, share) {
  const place = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const lower = Math.min(stops.length - 2, Math.floor(place));
  const [from, to] = [channels(stops[lower]), channels(stops[lower + 1])];
  return from.map((value, index) => Math.round(value + (to[index] - value) * (place - lower)));
}

function css(rgb) {
  return `rgb(${rgb.join(", ")})`;
}

const heatTables = {};

// One colour per weight in thousandths: looked up thousands of times per drawing.
export function heatTable() {
  const name = scheme();
  heatTables[name] ??= Array.from({length: 1001}, (_, weight) => css(along(HEAT[name], weight / 1000)));
  return heatTables[name];
}

// Colour of a weight in the units of the routes.
export function heatColour(colours, weight) {
  return colours[Math.max(0, Math.min(1000, Math.round((1000 * weight) / WHOLE)))];
}

// Background for a signed value, and a text colour that is readable on it.
export function signedColours(value, most) {
  const rgb = along(SIGNED[scheme()], 0.5 + 0.5 * Math.max(-1, Math.min(1, value / (most || 1))));
  return {"background-color": css(rgb), color: luminance(rgb) > 0.18 ? "#000000" : "#ffffff"};
}

// Relative luminance, WCAG 2. Black and white have equal contrast at 0.18.
function luminance(rgb) {
  const [red, green, blue] = rgb.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

export function gradient(stops) {
  return `linear-gradient(to right, ${stops.join(", ")})`;
}
