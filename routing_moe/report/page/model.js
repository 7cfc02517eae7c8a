// The report's data, with lookups and means. It draws nothing.

import {byId} from "./dom.js";
import {mean, UNKNOWN} from "./numbers.js";

export const DATA = JSON.parse(byId("report-data").textContent);
export const TASKS = DATA.tasks;
export const RUNS = DATA.runs;
const NO_KIND = "#949494";
export const WHOLE = 10000; // routes hold weights in ten-thousandths
const SUBCATEGORIES = DATA.categories.flatMap((category) => category.subcategories);
for (const entry of [...DATA.categories, ...SUBCATEGORIES, ...TASKS]) entry.name = named(entry.name);
for (const task of TASKS) {
  task.category = named(task.category);
  task.subcategory = named(task.subcategory);
}
const COLOURS = kindColours();

RUNS.forEach((run, index) => {
  run.index = index;
  run.name = named(run.name);
  run.columns = run.layers.length * run.experts;
  run.rowOf = new Map(run.tasks.map((task, row) => [task, row]));
});

export const ROUTED = RUNS.filter((run) => run.tasks.length && run.columns);

// A blank name could be neither read nor clicked.
export function named(name) {
  return name.trim() ? name : "(no name)";
}

function kindColours() {
  const colours = new Map();
  for (const category of DATA.categories) {
    colours.set(JSON.stringify([category.name, ""]), category.colour);
    for (const sub of category.subcategories)
      colours.set(JSON.stringify([category.name, sub.name]), sub.colour);
  }
  return colours;
}

export function kindColour(category, subcategory = "") {
  return COLOURS.get(JSON.stringify([category, subcategory])) ?? NO_KIND;
}

// Categories in the ontology's order, then those that only tasks have.
function categoryNames() {
  return [...new Set([...DATA.categories.map((kind) => kind.name), ...TASKS.map((task) => task.category)])];
}

// [[category, [task, ...]], ...] for the categories that have at least one of the tasks.
export function byCategory(tasks) {
  const groups = categoryNames().map((name) => [name, tasks.filter((task) => TASKS[task].category === name)]);
  return groups.filter(([, members]) => members.length);
}

export function columnOf(run, layer, expert) {
  return layer * run.experts + expert;
}

export function expertOf(run, column) {
  return {run: run.index, layer: Math.floor(column / run.experts), expert: column % run.experts};
}

export function expertName(run, layer, expert) {
  return `${run.layers[layer]}, expert ${expert}`;
}

export function weightAt(run, row, column) {
  return run.routes[row][column] / WHOLE;
}

// The mean over tasks of an expert's weight.
export function loadOf(run, column) {
  return mean(run.routes.map((weights) => weights[column])) / WHOLE;
}

// [[task, overlap], ...]: the tasks whose routes are nearest, the most similar first.
export function nearestTasks(run, task) {
  return run.nearest[run.rowOf.get(task)] ?? [];
}

// [{task, weight}, ...]: all tasks of the run, largest weight first.
export function tasksOfExpert(run, column) {
  return run.tasks
    .map((task, row) => ({task, weight: weightAt(run, row, column)}))
    .sort((a, b) => b.weight - a.weight);
}

// The number of tasks that give this expert more weight than any other of its layer; ties do not count.
export function firstChoices(run, column) {
  const start = column - (column % run.experts);
  const isFirst = (weights) => {
    const layer = weights.slice(start, start + run.experts);
    return layer.every((weight, expert) => start + expert === column || weight < weights[column]);
  };
  return run.routes.filter(isFirst).length;
}

export function runSuffix(run) {
  return RUNS.length > 1 ? `, ${run.name}` : "";
}

// Without the task's name, which is shown beside it: "1536_0" of "task_1536_0".
export function sampleName(task, sample) {
  if (sample === null || sample === undefined) return UNKNOWN;
  const start = `${TASKS[task].name}_`;
  return sample.startsWith(start) && sample !== start ? sample.slice(start.length) : sample;
}

// The mean over the scored ones of the tasks, null if there is none.
export function meanDrop(run, column, tasks) {
  return mean(tasks.map((task) => dropOf(run, column, task)));
}

export function dropOf(run, column, task) {
  const {ablation} = run;
  ablation.placeOf ??= new Map(ablation.tasks.map((tried, row) => [tried, row]));
  const place = ablation.placeOf.get(task);
  return place === undefined ? null : (ablation.drops[column]?.[place] ?? null);
}
