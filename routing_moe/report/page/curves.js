// Training curves: a chart per group of curves, with all runs in it.

import {drawChart, lineChart, stopReading} from "./chart.js";
import {byId, followWidth, make} from "./dom.js";
import {COARSE} from "./map.js";
import {RUNS} from "./model.js";
import {largest} from "./numbers.js";
import {onPrint, PAPER_WIDTH} from "./print.js";
import {lead, section} from "./section.js";

const GROUP_TITLES = {
  loss: "Loss",
  score: "Score",
  route: "Routes (entropies and information: shares of log E; distance: share of weight)",
  optimizer: "Optimizer",
};
const SCALE_APART = 20; // largest ratio of maxima in one chart: smaller curves would look flat

const POINT_LEAD = "Point at a chart, or focus it and use the arrow keys, to read its values.";
const TAP_LEAD = "Tap a chart to read its values at a step; tap elsewhere to see the last values again.";

export function curvesSection() {
  const charts = curveGroups().flatMap(([group, lines]) => {
    return chartsOf(group, lines).map((own) => lineChart(chartTitle(group, own), styledLines(own)));
  });
  if (!charts.length) return;
  section("curves", "Curves", lead(COARSE ? TAP_LEAD : POINT_LEAD));
  const grid = make(
    "div",
    {class: "charts"},
    charts.map((chart) => chart.node),
  );
  byId("curves").append(grid);
  const drawAll = (width) =>
    charts.forEach((chart) => {
      drawChart(chart, width);
      if (chart.at === null) stopReading(chart);
    });
  drawAll();
  followWidth(() => drawAll());
  onPrint((on) => drawAll(on ? PAPER_WIDTH / 2 - 14 : undefined));
}

// [[group, [line, ...]], ...]. With several runs, the dash shows the run and the hue the curve; in a
// chart of a single curve, both show the run.
function curveGroups() {
  const groups = new Map();
  for (const run of RUNS) {
    for (const curve of run.curves) {
      if (!groups.has(curve.group)) groups.set(curve.group, []);
      groups.get(curve.group).push({run, curve});
    }
  }
  return [...groups].map(([group, entries]) => {
    return [group, entries.map(({run, curve}) => ({run, ...curve, size: largest(curve.values)}))];
  });
}

// Lines with their hue, their dash and the label at their end.
function styledLines(lines) {
  const names = [...new Set(lines.map((line) => line.name))];
  const oneName = names.length === 1;
  return lines.map(({run, name, steps, values}) => {
    const full = RUNS.length > 1 ? `${name}, ${run.name}` : name;
    const hue = oneName ? run.index : names.indexOf(name);
    return {
      name: full,
      label: RUNS.length === 1 ? name : oneName ? run.name : `${run.name}: ${name}`,
      steps,
      values,
      hue,
      dash: run.index,
    };
  });
}

// Lines split by size; runs of one curve stay together. Curves of the optimizer have no common unit, so each
// has its own chart.
function chartsOf(group, lines) {
  const sizes = new Map();
  for (const line of lines) sizes.set(line.name, Math.max(sizes.get(line.name) ?? 0, line.size));
  const names = [...sizes.keys()].sort((a, b) => sizes.get(b) - sizes.get(a));
  const charts = [];
  for (const name of names) {
    const current = charts.at(-1);
    const sameScale = current && sizes.get(current[0]) <= SCALE_APART * sizes.get(name);
    if (sameScale && group !== "optimizer") current.push(name);
    else charts.push([name]);
  }
  return charts.map((members) => lines.filter((line) => members.includes(line.name)));
}

function chartTitle(group, lines) {
  const names = new Set(lines.map((line) => line.name));
  const title = GROUP_TITLES[group] ?? group;
  return names.size === 1 ? `${title}: ${[...names][0]}` : title;
}
