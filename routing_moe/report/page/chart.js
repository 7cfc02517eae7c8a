// A line chart in SVG: axes, lines with their names at the end, and a readout of the values at the step that
// pointer or arrow keys select.

import {announce, draw, make, numberText} from "./dom.js";
import {brief, shortened} from "./numbers.js";

const CHART_HEIGHT = 230;
const MARGIN = {top: 10, right: 18, bottom: 32, left: 52};
const LABELS_FROM = 2; // lines; up to LABELS_TO of them also have labels at their ends, more would overlap
const LABELS_TO = 8;
const LABEL_GAP = 12;
const LABEL_LETTERS = 24;
const LETTER_WIDTH = 6.4;
const DASHES = ["", "6 3", "2 3", "8 3 2 3", "1 2"];

// lines: [{name, label (at its end), steps, values, hue (index of a colour), dash (index)}, ...], unknown
// values null.
export function lineChart(title, lines) {
  const chart = {title, lines, steps: allSteps(lines), at: null};
  chart.svg = draw("svg", {
    class: "chart",
    tabindex: "0",
    role: "img",
    "aria-label": chartText(title, lines),
  });
  chart.readout = make(
    "ul",
    {class: "readout"},
    lines.map((line) => readoutEntry(line)),
  );
  chart.step = make("p", {class: "readout-step"});
  chart.node = make("figure", {class: "chart-figure"}, make("figcaption", {}, title), chart.svg);
  chart.node.append(chart.step, chart.readout);
  listenToChart(chart);
  return chart;
}

function chartText(title, lines) {
  const ends = lines.map((line) => `${line.name} ${brief(lastKnown(line.values))}`);
  return `${title}. Last values: ${ends.join("; ")}. Left and right arrow keys read the values step by step.`;
}

function lastKnown(values) {
  return values.findLast((value) => value !== null) ?? null;
}

function allSteps(lines) {
  return [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
}

function readoutEntry(line) {
  const swatch = draw("svg", {class: "swatch", width: "26", height: "8", "aria-hidden": "true"});
  swatch.append(draw("line", {x1: "1", x2: "25", y1: "4", y2: "4", ...stroke(line)}));
  line.readout = numberText(brief(lastKnown(line.values)));
  return make("li", {}, swatch, make("span", {}, line.name), line.readout);
}

function stroke(line) {
  return {class: `line hue-${line.hue % 6}`, "stroke-dasharray": DASHES[line.dash % DASHES.length]};
}

// ------------------------------------------------------------------ drawing

export function drawChart(chart, wanted = chart.node.clientWidth) {
  const width = Math.max(240, wanted);
  const named = chart.lines.length >= LABELS_FROM && chart.lines.length <= LABELS_TO && width > 400;
  const letters = Math.min(LABEL_LETTERS, Math.max(...chart.lines.map((line) => line.label.length)));
  chart.labelRoom = named ? letters * LETTER_WIDTH : 0;
  const right = width - MARGIN.right - chart.labelRoom;
  const ticksX = niceTicks(
    chart.steps[0] ?? 0,
    chart.steps.at(-1) ?? 1,
    Math.max(3, Math.floor(right / 90)),
    true,
  );
  const [low, high] = valueRange(chart.lines);
  const ticksY = niceTicks(low, high, 5);
  chart.x = scale(chart.steps[0] ?? 0, chart.steps.at(-1) ?? 1, MARGIN.left, right);
  chart.y = scale(
    Math.min(low, ticksY[0]),
    Math.max(high, ticksY.at(-1)),
    CHART_HEIGHT - MARGIN.bottom,
    MARGIN.top,
  );
  chart.rule = draw("line", {
    class: "rule",
    y1: MARGIN.top,
    y2: CHART_HEIGHT - MARGIN.bottom,
    visibility: "hidden",
  });
  chart.dots = draw("g");
  const box = {viewBox: `0 0 ${width} ${CHART_HEIGHT}`, width, height: CHART_HEIGHT};
  for (const [name, value] of Object.entries(box)) chart.svg.setAttribute(name, value);
  const axes = [
    ...ticksY.map((tick) => tickY(chart, tick, right)),
    ...ticksX.map((tick) => tickX(chart, tick)),
  ];
  const name = draw("text", {class: "axis", x: right, y: CHART_HEIGHT - 2, "text-anchor": "end"}, "step");
  const paths = chart.lines.map((line) => draw("path", {d: pathOf(chart, line), ...stroke(line)}));
  const lonely = chart.lines.flatMap((line) => lonelyPoints(chart, line));
  chart.svg.replaceChildren(...axes, name, chart.rule, ...paths, ...lonely, chart.dots);
  if (named) chart.svg.append(...endLabels(chart));
  if (chart.at !== null) readAt(chart, chart.at);
}

export function scale(from, to, start, end) {
  const span = to - from || 1;
  return (value) => start + ((value - from) / span) * (end - start);
}

function valueRange(lines) {
  let [low, high] = [Infinity, -Infinity];
  for (const {values} of lines) {
    for (const value of values) {
      if (value === null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (low > high) return [0, 1];
  if (low === high) return [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  return low > 0 && low < high * 0.35 ? [0, high] : [low, high];
}

// Round numbers within [low, high], about `count` of them.
function niceTicks(low, high, count, whole = false) {
  if (low === high) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  if (whole) step = Math.max(1, step);
  const ticks = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) {
    ticks.push(Number((index * step).toPrecision(12)));
  }
  return ticks.length ? ticks : [low];
}

function tickX(chart, tick) {
  const place = {
    class: "tick",
    x: chart.x(tick),
    y: CHART_HEIGHT - MARGIN.bottom + 14,
    "text-anchor": "middle",
  };
  return draw("text", place, String(tick));
}

function tickY(chart, tick, right) {
  const y = chart.y(tick);
  const line = draw("line", {class: "grid", x1: MARGIN.left, x2: right, y1: y, y2: y});
  return draw(
    "g",
    {},
    line,
    draw("text", {class: "tick", x: MARGIN.left - 6, y: y + 4, "text-anchor": "end"}, brief(tick)),
  );
}

function pathOf(chart, {steps, values}) {
  let path = "";
  let pen = "M"; // lifted over unknown values
  steps.forEach((step, index) => {
    const value = values[index];
    if (value === null || value === undefined) {
      pen = "M";
      return;
    }
    path += `${pen}${chart.x(step).toFixed(1)} ${chart.y(value).toFixed(1)}`;
    pen = "L";
  });
  return path || "M0 0";
}

// A value between unknown values, where no line is drawn.
function lonelyPoints(chart, {steps, values, hue}) {
  const known = (index) => values[index] !== null && values[index] !== undefined;
  const alone = [...steps.keys()].filter((at) => known(at) && !known(at - 1) && !known(at + 1));
  return alone.map((at) => {
    const place = {cx: chart.x(steps[at]), cy: chart.y(values[at]), r: 3};
    return draw("circle", {class: `dot hue-${hue % 6}`, ...place});
  });
}

// Labels at the ends of their lines. Labels that would overlap are moved down, then up from the lower edge.
function endLabels(chart) {
  const labels = chart.lines
    .filter((line) => lastKnown(line.values) !== null)
    .map((line) => {
      const last = line.values.findLastIndex((value) => value !== null);
      return {line, x: chart.x(line.steps[last]) + 6, y: chart.y(line.values[last])};
    })
    .sort((a, b) => a.y - b.y);
  const meet = (a, b) => Math.abs(a.x - b.x) < chart.labelRoom;
  labels.forEach((label, index) => {
    const above = labels.slice(0, index).filter((other) => meet(label, other));
    label.y = Math.max(label.y, ...above.map((other) => other.y + LABEL_GAP));
  });
  labels.reverse().forEach((label, index) => {
    const below = labels.slice(0, index).filter((other) => meet(label, other));
    const lowest = CHART_HEIGHT - MARGIN.bottom;
    label.y = Math.min(label.y, lowest, ...below.map((other) => other.y - LABEL_GAP));
  });
  return labels.map(({line, x, y}) => {
    const text = shortened(line.label, LABEL_LETTERS);
    return draw("text", {class: `end-label hue-${line.hue % 6}`, x, y: y + 4}, text);
  });
}

// ------------------------------------------------------------------ reading values

function listenToChart(chart) {
  const read = (event) => {
    const box = chart.svg.getBoundingClientRect();
    readAt(chart, nearestStep(chart, event.clientX - box.left));
  };
  chart.svg.addEventListener("pointerdown", read);
  chart.svg.addEventListener("pointermove", read);
  // Lifting a finger also fires pointerleave; the values stay until a tap elsewhere.
  chart.svg.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && stopReading(chart));
  document.addEventListener("pointerdown", (event) => {
    if (chart.at !== null && !chart.svg.contains(event.target)) stopReading(chart);
  });
  chart.svg.addEventListener("blur", () => stopReading(chart));
  chart.svg.addEventListener("keydown", (event) => onChartKey(chart, event));
}

function nearestStep(chart, x) {
  let best = 0;
  chart.steps.forEach((step, index) => {
    if (Math.abs(chart.x(step) - x) < Math.abs(chart.x(chart.steps[best]) - x)) best = index;
  });
  return best;
}

function onChartKey(chart, event) {
  const last = chart.steps.length - 1;
  const moves = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity};
  if (!Object.hasOwn(moves, event.key) || last < 0) return;
  event.preventDefault();
  const from = chart.at ?? (moves[event.key] > 0 ? -1 : last + 1);
  readAt(chart, Math.max(0, Math.min(last, from + moves[event.key])));
  const values = chart.lines.map((line) => `${line.name} ${line.readout.textContent}`);
  announce(`Step ${chart.steps[chart.at]}: ${values.join("; ")}`);
}

function readAt(chart, index) {
  const step = chart.steps[index];
  if (step === undefined) return;
  chart.at = index;
  const x = chart.x(step);
  for (const [name, value] of [
    ["x1", x],
    ["x2", x],
    ["visibility", "visible"],
  ])
    chart.rule.setAttribute(name, value);
  chart.step.textContent = `at step ${step}`;
  chart.dots.replaceChildren();
  for (const line of chart.lines) {
    const value = line.values[line.steps.indexOf(step)] ?? null;
    line.readout.textContent = brief(value);
    if (value === null) continue;
    chart.dots.append(draw("circle", {class: `dot hue-${line.hue % 6}`, cx: x, cy: chart.y(value), r: 3}));
  }
}

export function stopReading(chart) {
  chart.at = null;
  chart.rule.setAttribute("visibility", "hidden");
  chart.dots.replaceChildren();
  chart.step.textContent = "last values";
  for (const line of chart.lines) line.readout.textContent = brief(lastKnown(line.values));
}
