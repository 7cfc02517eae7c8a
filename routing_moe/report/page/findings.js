// Results of the analyses: correlations, recovery of task labels from routes, stability between runs.

import {bar, labelled, make, scrollBox, signedBar, textFilter} from "./dom.js";
import {DATA, RUNS} from "./model.js";
import {fixed, largest, probability, signed} from "./numbers.js";
import {lead, runChoice, section} from "./section.js";
import {expertButton, selectExpert} from "./state.js";
import {plainTable, sortableTable} from "./table.js";

export function correlationsSection() {
  const runs = RUNS.filter((run) => run.correlations);
  if (!runs.length) return;
  const view = {run: runs[0], text: ""};
  const note = make("p", {class: "lead"});
  const table = sortableTable({
    caption: "Correlations of features with experts",
    columns: correlationColumns(view),
    rows: [],
    onRow: (row) => selectExpert(view.run, row[1], row[2]),
  });
  const showRun = (run) => {
    view.run = run;
    view.most = largest(run.correlations.rows.map((row) => row[3]));
    note.textContent = run.correlations.note;
    table.setRows(run.correlations.rows);
  };
  const filter = textFilter((text) => table.filter((row) => row[0].toLowerCase().includes(text)), "feature");
  const tools = make("div", {class: "tools"}, runChoice(runs, showRun), labelled("filter", filter));
  section("correlations", "Correlations", note, tools, table.node);
  table.node.id = "correlation-table";
  showRun(runs[0]);
}

function correlationColumns(view) {
  const value = (index) => (row) => row[index];
  const r = (row) => [signed(row[3], 3), signedBar(row[3], view.most)];
  return [
    {label: "feature", value: value(0)},
    {label: "layer", value: value(1), show: (row) => view.run.layers[row[1]], shape: "tight"},
    {
      label: "expert",
      value: value(2),
      show: (row) => expertButton(view.run, row[1], row[2], String(row[2])),
      number: true,
    },
    {label: "r", value: value(3), show: r, number: true},
    {label: "p", value: value(4), show: (row) => probability(row[4]), number: true},
    {label: "q", value: value(5), show: (row) => probability(row[5]), number: true},
    {label: "q (BY)", value: value(7), show: (row) => probability(row[7]), number: true},
    {label: "n", value: value(6), number: true},
  ];
}

export function recoverySection() {
  const runs = RUNS.filter((run) => run.recovery);
  if (!runs.length) return;
  const grid = make("div", {class: "charts"});
  section("recovery", "Recovery", grid);
  const tested = (name) => [name, "p", "q (BY)"].map((head) => [head, true]);
  const heads = [["labels"], ["tasks", true], ...tested("AMI"), ...tested("Mantel r")];
  for (const run of runs) {
    const cells = ([value, p, q]) => [fixed(value), probability(p), probability(q)];
    const rows = run.recovery.rows.map(([what, tasks, ...found]) => {
      return [what, String(tasks), ...cells(found.slice(0, 3)), ...cells(found.slice(3))];
    });
    const caption = `Recovery of task labels from routes, ${run.name}`;
    const heading = runs.length > 1 ? make("h3", {}, run.name) : null;
    const table = scrollBox(caption, plainTable(caption, heads, rows));
    grid.append(make("div", {}, heading, lead(run.recovery.note), table));
  }
}

export function stabilitySection() {
  if (!DATA.stability.length) return;
  const node = section("stability", "Stability", lead(STABILITY_LEAD));
  for (const pair of DATA.stability) {
    const names = `${RUNS[pair.a].name} and ${RUNS[pair.b].name}`;
    const test = `p ${probability(pair.p)} of ${pair.permutations} permutations`;
    const numbers = `overlap ${fixed(pair.overlap)}, by chance ${fixed(pair.chance)}, ${test}`;
    const heads = [["layer"], ["overlap", true], ["experts matched"]];
    const rows = pair.layers.map(([layer, shared, matched]) => [
      layer,
      [fixed(shared), bar(shared)],
      matched,
    ]);
    const table = plainTable(`Agreement by layer, ${names}`, heads, rows);
    const summary = make("summary", {}, make("strong", {}, names), " ", make("span", {}, numbers));
    node.append(make("details", {class: "pair"}, summary, scrollBox(`Agreement by layer, ${names}`, table)));
  }
}

const STABILITY_LEAD =
  "Overlap of the routes of two runs after the best matching of their experts, and the overlap expected by " +
  "chance. Open a pair to see its layers.";
