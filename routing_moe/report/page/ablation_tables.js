// Tables of the ablation: single experts, the experts of a feature, sets of experts.

import {checkBox, labelled, make, numberText, scrollBox, signedBar, textFilter} from "./dom.js";
import {dropOf, expertOf, loadOf} from "./model.js";
import {fixed, largest, mean, probability, signed} from "./numbers.js";
import {expertButton, taskButton} from "./state.js";
import {plainTable, sortableTable} from "./table.js";

const WORST_SHOWN = 3;
const MAIN_GROUPS = ["with feature", "without feature", "all"]; // the others are categories of tasks

function bulleted(items) {
  return make(
    "ul",
    {class: "hits"},
    items.map((item) => make("li", {}, item)),
  );
}

// worst: [[task, drop], ...]
function largestDrops(worst) {
  return bulleted(worst.map(([task, drop]) => [taskButton(task), " ", numberText(signed(drop))]));
}

// ------------------------------------------------------------------ experts

export function expertDrops(run) {
  const rows = Array.from({length: run.columns}, (_, column) => expertRow(run, column));
  const table = sortableTable({
    caption: "Experts by mean drop",
    columns: expertColumns(run, largest(rows.map((row) => row.drop))),
    rows: rows.sort((a, b) => (b.drop ?? -Infinity) - (a.drop ?? -Infinity)),
    drawn: 12,
  });
  table.node.id = "expert-drops";
  return table.node;
}

function expertRow(run, column) {
  const drops = run.ablation.tasks.map((task) => [task, dropOf(run, column, task)]);
  const known = drops.filter(([, drop]) => drop !== null).sort((a, b) => b[1] - a[1]);
  return {
    ...expertOf(run, column),
    column,
    drop: mean(known.map(([, drop]) => drop)),
    load: loadOf(run, column),
    n: known.length,
    worst: known.slice(0, WORST_SHOWN).filter(([, drop]) => drop > 0),
  };
}

function expertColumns(run, most) {
  const expert = (row) => expertButton(run, row.layer, row.expert);
  const drop = (row) => [signed(row.drop), signedBar(row.drop, most)];
  const load = (row) => fixed(row.load);
  const hits = (row) => largestDrops(row.worst);
  return [
    {label: "expert", value: (row) => row.column, show: expert, shape: "tight"},
    {label: "mean drop", value: (row) => row.drop, show: drop, number: true},
    {label: "load", value: (row) => row.load, show: load, number: true},
    {label: "n", value: (row) => row.n, number: true},
    {label: "largest drops", value: (row) => row.worst[0]?.[1] ?? null, show: hits, shape: "wide"},
  ];
}

// ------------------------------------------------------------------ features

export function featureDrops(run) {
  const rows = run.ablation.features.flatMap(({feature, experts, groups}) => {
    return groups.map((group) => ({feature, experts, group}));
  });
  const wanted = {text: "", categories: false};
  const isMain = ({group}) => MAIN_GROUPS.includes(group[0]);
  const keep = (row) => row.feature.toLowerCase().includes(wanted.text) && (wanted.categories || isMain(row));
  const caption = "Drop when a feature's experts are ablated";
  const table = sortableTable({caption, columns: featureColumns(run), rows, keep});
  table.node.id = "feature-drops";
  const apply = (name) => (value) => {
    wanted[name] = value;
    table.filter(keep);
  };
  const tools = [labelled("filter", textFilter(apply("text"), "feature"))];
  if (!rows.every(isMain)) tools.push(checkBox("also categories of tasks", apply("categories")));
  return [make("div", {class: "tools"}, tools), table.node];
}

function featureColumns(run) {
  const at = (index) => (row) => row.group[index];
  const number = (label, index, show) => {
    return {label, value: at(index), show: (row) => show(at(index)(row)), number: true};
  };
  const experts = (row) => bulleted(row.experts.map(([layer, expert]) => expertButton(run, layer, expert)));
  const random = ({group}) => `${signed(group[3])}${group[4] === null ? "" : ` ± ${fixed(group[4])}`}`;
  return [
    {label: "feature", value: (row) => row.feature},
    {label: "tasks", value: at(0), shape: "tight"},
    number("n", 1, String),
    number("weight, its experts", 7, fixed),
    number("weight, others", 8, fixed),
    number("drop, its experts", 2, signed),
    {...number("drop, others", 3, signed), show: random},
    number("sets", 5, String),
    number("p", 6, probability),
    {label: "experts", value: (row) => row.experts.length, show: experts, shape: "wide"},
  ];
}

// ------------------------------------------------------------------ sets

export function setDrops(run) {
  const rows = run.ablation.sets.map(([name, drop, worst]) => {
    return [name.replaceAll("+", " + "), signed(drop), largestDrops(worst.filter(([, own]) => own > 0))];
  });
  const caption = "Drop when a set of experts is ablated";
  const table = plainTable(caption, [["set"], ["mean drop", true], ["largest drops"]], rows);
  const node = scrollBox(caption, table);
  node.id = "set-drops";
  return node;
}
