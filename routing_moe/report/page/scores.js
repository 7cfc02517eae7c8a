// Scores: means by category, then every task. One column per run for each part (dev, test) of a task's data.

import {checkBox, choice, labelled, make, textFilter} from "./dom.js";
import {byCategory, RUNS, sampleName, TASKS} from "./model.js";
import {brief, fixed, mean, signed} from "./numbers.js";
import {lead, section} from "./section.js";
import {taskButton} from "./state.js";
import {sortableTable} from "./table.js";

export function scoresSection() {
  const scored = RUNS.filter((run) => run.scores.some((group) => group.rows.length));
  if (!scored.length) return;
  const rows = scoreRows(scored);
  const node = section("scores", "Scores", lead("Scores of the best checkpoint of each run."));
  node.append(make("h3", {}, "Means by category"), lead(MEANS_LEAD), meansTable(scored, rows));
  node.append(make("h3", {}, "Tasks"), ...taskScores(scored, rows));
}

const MEANS_LEAD =
  "Means over tasks of each task's own metric; a task's samples are averaged first. Constant: score of the " +
  "same answer to all examples. n: tasks with a score.";

// One row per task, sample, metric and section; `parts` holds {scores: [one per run], n, constant} per part.
function scoreRows(scored) {
  const found = new Map();
  scored.forEach((run, place) => {
    for (const {part, section: split, rows} of run.scores) {
      for (const [task, sample, metric, score, n, constant] of rows) {
        const key = JSON.stringify([task, sample, metric, split]);
        if (!found.has(key)) found.set(key, {task, sample, metric, split, parts: new Map()});
        const {parts} = found.get(key);
        if (!parts.has(part)) parts.set(part, {scores: scored.map(() => null), n: null, constant: null});
        const cell = parts.get(part);
        cell.scores[place] = score;
        cell.n ??= n;
        cell.constant ??= constant;
      }
    }
  });
  return [...found.values()].sort((a, b) => a.task - b.task);
}

function distinct(rows, pick) {
  return [...new Set(rows.map(pick))].filter((value) => value !== null && value !== undefined);
}

function partsOf(rows) {
  return [...new Set(rows.flatMap((row) => [...row.parts.keys()]))];
}

// The rows of a task, metric and section as one row: the mean over samples.
function meanOverSamples(rows) {
  const groups = new Map();
  for (const row of rows) {
    const key = JSON.stringify([row.task, row.metric, row.split]);
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  return [...groups.values()].map((group) => {
    const parts = new Map(partsOf(group).map((part) => [part, meanCell(group, part)]));
    return {...group[0], sample: `mean of ${group.length}`, parts};
  });
}

function meanCell(group, part) {
  const cells = group.map((row) => row.parts.get(part)).filter(Boolean);
  const scores = cells[0].scores.map((_, place) => mean(cells.map((cell) => cell.scores[place])));
  return {scores, n: mean(cells.map((cell) => cell.n)), constant: mean(cells.map((cell) => cell.constant))};
}

// ------------------------------------------------------------------ means

function meansTable(scored, rows) {
  const tasks = meanOverSamples(rows);
  const series = [];
  for (const split of distinct(tasks, (row) => row.split)) {
    for (const part of partsOf(tasks.filter((row) => row.split === split))) series.push({part, split});
  }
  const groups = [["all tasks", null], ...byCategory(distinct(tasks, (row) => row.task))];
  const values = (members, {part, split}) => {
    const own = tasks.filter((row) => row.split === split && (!members || members.includes(row.task)));
    return own.map((row) => row.parts.get(part)).filter(Boolean);
  };
  const columns = [{label: "category", value: ([name]) => name}];
  for (const entry of series) columns.push(...meanColumns(scored, entry, (row) => values(row[1], entry)));
  const pinned = ([, members]) => members === null;
  return sortableTable({caption: "Mean scores by category", columns, rows: groups, pinned}).node;
}

function meanColumns(scored, {part, split}, cellsOf) {
  const group = split ? `${part}, ${split} tasks` : part;
  const column = (label, value, show) => ({
    label,
    value,
    show: (row) => show(value(row)),
    number: true,
    group,
  });
  const columns = scored.map((run, place) => {
    return column(run.name, (row) => mean(cellsOf(row).map((cell) => cell.scores[place])), fixed);
  });
  columns.push(column("constant", (row) => mean(cellsOf(row).map((cell) => cell.constant)), fixed));
  columns.push(column("n", (row) => cellsOf(row).length, String));
  return columns;
}

// ------------------------------------------------------------------ tasks

function taskScores(scored, rows) {
  const columns = taskColumns(scored, rows);
  const table = sortableTable({caption: "Scores of every task", columns, rows});
  const wanted = {text: "", category: "", split: ""};
  const apply = (name) => (value) => {
    wanted[name] = value;
    table.filter((row) => matchesScore(row, wanted));
  };
  const tools = [
    labelled("filter", textFilter(apply("text"), "task or metric")),
    labelled("category", choice(withAll(scoredCategories(rows)), apply("category"), {id: "score-category"})),
  ];
  const splits = distinct(rows, (row) => row.split);
  if (splits.length > 1) tools.push(labelled("tasks of", choice(withAll(splits), apply("split"))));
  if (severalSamples(rows)) {
    tools.push(checkBox("mean over samples", (on) => table.setRows(on ? meanOverSamples(rows) : rows)));
  }
  table.node.id = "score-table";
  return [lead(tasksLead(scored)), make("div", {class: "tools"}, tools), table.node];
}

function tasksLead(scored) {
  const compared = scored.length === 2 ? ` Difference: ${scored[1].name} minus ${scored[0].name}.` : "";
  return `n: examples.${compared} Select a column head to sort by it.`;
}

function scoredCategories(rows) {
  return byCategory(distinct(rows, (row) => row.task)).map(([name]) => name);
}

// Whether a task has several samples; otherwise a column of samples would repeat the names of tasks.
function severalSamples(rows) {
  const first = new Map();
  for (const {task, sample} of rows) {
    if (!first.has(task)) first.set(task, sample);
    if (first.get(task) !== sample) return true;
  }
  return false;
}

function withAll(names) {
  return [["", "all"], ...names.map((name) => [name, name])];
}

function matchesScore(row, {text, category, split}) {
  const task = TASKS[row.task];
  const words = `${task.name} ${row.metric ?? ""}`.toLowerCase();
  return words.includes(text) && (!category || task.category === category) && (!split || row.split === split);
}

function taskColumns(scored, rows) {
  const columns = [
    {label: "task", value: (row) => TASKS[row.task].name, show: (row) => taskButton(row.task)},
  ];
  for (const part of partsOf(rows)) columns.push(...partColumns(scored, part));
  columns.push(
    {label: "metric", value: (row) => row.metric, shape: "tight"},
    {label: "category", value: (row) => TASKS[row.task].category},
  );
  if (distinct(rows, (row) => row.split).length > 1)
    columns.push({label: "tasks of", value: (row) => row.split});
  if (severalSamples(rows))
    columns.push({label: "sample", value: (row) => sampleName(row.task, row.sample), shape: "tight"});
  return columns;
}

function partColumns(scored, part) {
  const cell = (row) => row.parts.get(part);
  const column = (label, value, show) => {
    return {label, value, show: (row) => show(value(row)), number: true, group: part};
  };
  const columns = scored.map((run, place) => column(run.name, (row) => cell(row)?.scores[place], fixed));
  if (scored.length === 2) {
    columns.push(column("difference", (row) => difference(cell(row)?.scores), signed));
  }
  columns.push(column("constant", (row) => cell(row)?.constant, fixed));
  columns.push(column("n", (row) => cell(row)?.n, brief));
  return columns;
}

function difference(scores) {
  if (!scores || scores.some((score) => score === null || score === undefined)) return null;
  return scores[1] - scores[0];
}
