// The report's data and what is computed from it: overlaps, neighbours, orders. No drawing here.

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

// A name of nothing but blanks could be neither read nor pressed.
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

// Categories in the ontology's order, then those that only tasks name.
function categoryNames() {
  return [...new Set([...DATA.categories.map((kind) => kind.name), ...TASKS.map((task) => task.category)])];
}

// [[category, [task, ...]], ...] for the categories that some of the tasks belong to.
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

// The mean over layers of sum_e min(a_e, b_e): 1 for equal routes, 0 where no expert is shared.
export function overlap(run, rowA, rowB) {
  const [a, b] = [run.routes[rowA], run.routes[rowB]];
  let shared = 0;
  for (let column = 0; column < run.columns; column += 1) shared += Math.min(a[column], b[column]);
  return shared / WHOLE / run.layers.length;
}

// [{task, overlap}, ...]: all other tasks of the run, most alike first, equals in the order of rows.
export function nearestTasks(run, task) {
  const own = run.rowOf.get(task);
  if (own === undefined) return [];
  return run.tasks
    .map((other, row) => ({task: other, overlap: overlap(run, own, row)}))
    .filter((near) => near.task !== task)
    .sort((a, b) => b.overlap - a.overlap);
}

// [{task, weight}, ...]: all tasks of the run, those that lean on the expert most first.
export function tasksOfExpert(run, column) {
  return run.tasks
    .map((task, row) => ({task, weight: weightAt(run, row, column)}))
    .sort((a, b) => b.weight - a.weight);
}

// How many tasks give this expert more weight than any other of its layer; experts that tie are no one's
// first choice.
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

// A sample's name begins with its task's, which is told beside it: "1536_0" of "task_1536_0".
export function sampleName(task, sample) {
  if (sample === null || sample === undefined) return UNKNOWN;
  const start = `${TASKS[task].name}_`;
  return sample.startsWith(start) && sample !== start ? sample.slice(start.length) : sample;
}

// The mean over those of the tasks that were tried, null if none was.
export function meanDrop(run, column, tasks) {
  return mean(tasks.map((task) => dropOf(run, column, task)));
}

export function dropOf(run, column, task) {
  const {ablation} = run;
  ablation.placeOf ??= new Map(ablation.tasks.map((tried, row) => [tried, row]));
  const place = ablation.placeOf.get(task);
  return place === undefined ? null : (ablation.drops[column]?.[place] ?? null);
}

// ------------------------------------------------------------------ order by similarity

// The tasks of a run so that those with like routes stand together: the leaves of an average-linkage tree,
// each two branches turned so that the ends that meet are as alike as can be. Merging reciprocal nearest
// neighbours gives the same tree as merging the closest pair (average linkage never brings a third closer),
// in n^2 steps instead of n^3.
export function similarityOrder(run) {
  const alike = overlapMatrix(run);
  const between = alike.map((row) => Float64Array.from(row));
  const branches = run.tasks.map((_, row) => [row]);
  const alive = new Set(branches.keys());
  let chain = [];
  while (alive.size > 1) {
    if (!chain.length) chain = [alive.values().next().value];
    const last = chain[chain.length - 1];
    const before = chain[chain.length - 2];
    const nearest = nearestBranch(between, alive, last, before);
    if (nearest !== before) {
      chain.push(nearest);
      continue;
    }
    chain.length -= 2;
    mergeInto(before, last, branches, between, alive, alike);
  }
  const [root] = alive;
  return branches[root].map((row) => run.tasks[row]);
}

function overlapMatrix(run) {
  const matrix = run.tasks.map(() => new Float64Array(run.tasks.length));
  for (let a = 0; a < matrix.length; a += 1) {
    for (let b = a + 1; b < matrix.length; b += 1) matrix[a][b] = matrix[b][a] = overlap(run, a, b);
  }
  return matrix;
}

// `preferred` wins a tie: without it, equal overlaps could send the chain round in circles.
function nearestBranch(between, alive, from, preferred) {
  let best = preferred;
  for (const other of alive) {
    if (other === from) continue;
    if (best === undefined || between[from][other] > between[from][best]) best = other;
  }
  return best;
}

function mergeInto(kept, gone, branches, between, alive, alike) {
  const [sizeKept, sizeGone] = [branches[kept].length, branches[gone].length];
  alive.delete(gone);
  for (const other of alive) {
    const sum = between[kept][other] * sizeKept + between[gone][other] * sizeGone;
    between[kept][other] = between[other][kept] = sum / (sizeKept + sizeGone);
  }
  branches[kept] = joinedBestWay(branches[kept], branches[gone], alike);
  branches[gone] = [];
}

function joinedBestWay(left, right, alike) {
  let best = null;
  for (const first of [left, [...left].reverse()]) {
    for (const second of [right, [...right].reverse()]) {
      const meeting = alike[first[first.length - 1]][second[0]];
      if (!best || meeting > best.meeting) best = {meeting, rows: [...first, ...second]};
    }
  }
  return best.rows;
}
