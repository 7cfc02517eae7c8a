// The ablation: drops by category and expert, by expert, by feature and by set of experts.

import {expertDrops, featureDrops, setDrops} from "./ablation_tables.js";
import {painters, signedColours} from "./colour.js";
import {make, scrollBox, setStyle} from "./dom.js";
import {byCategory, expertName, expertOf, meanDrop, RUNS} from "./model.js";
import {fixed, largest} from "./numbers.js";
import {lead, runChoice, section} from "./section.js";
import {expertButton} from "./state.js";

export function ablationSection() {
  const runs = RUNS.filter((run) => run.ablation);
  if (!runs.length) return;
  const view = make("div", {class: "ablation"});
  const showRun = (run) => view.replaceChildren(...ablationParts(run));
  const tools = make("div", {class: "tools"}, runChoice(runs, showRun));
  section("ablation", "Ablation", runs.length > 1 ? tools : null, view);
  showRun(runs[0]);
  painters.push(() => paintDrops(view));
}

function ablationParts(run) {
  const {note, part, tasks, features, sets} = run.ablation;
  const unit = lead(`Drop: ${part} score before minus after ablating the expert; above 0 the expert helped.`);
  const parts = [lead(note), unit];
  // Single experts may not have been ablated: only the experts of features, or sets.
  if (tasks.length) {
    parts.push(make("h3", {}, "Mean drop by category"), dropMap(run));
    parts.push(make("h3", {}, "Experts"), lead(EXPERTS_LEAD), expertDrops(run));
  }
  if (features.length)
    parts.push(make("h3", {}, "Experts of a feature"), lead(FEATURES_LEAD), ...featureDrops(run));
  if (sets?.length) parts.push(make("h3", {}, "Sets of experts"), lead(SETS_LEAD), setDrops(run));
  return parts;
}

const EXPERTS_LEAD = "Load: mean weight of the expert over all tasks. n: scored tasks.";
const FEATURES_LEAD =
  "The experts most correlated with a feature, all ablated at once, against random sets of as many other " +
  "experts (mean ± standard deviation over sets). Weight: mean weight in the routes of the tasks. n: tasks.";
const SETS_LEAD = "Sets of experts named by the user, each ablated at once.";

// ------------------------------------------------------------------ categories by experts

function dropMap(run) {
  const groups = [["all tasks", run.ablation.tasks], ...byCategory(run.ablation.tasks)];
  const columns = Array.from({length: run.columns}, (_, column) => column);
  const values = groups.map(([, tasks]) => columns.map((column) => meanDrop(run, column, tasks)));
  const most = largest(values.flat());
  const body = groups.map(([name, tasks], row) => {
    const cells = values[row].map((value, column) => dropCell(run, value, most, column));
    return make(
      "tr",
      {},
      make("th", {scope: "row"}, name),
      make("td", {class: "number"}, String(tasks.length)),
      cells,
    );
  });
  const caption = `Mean drop by category and expert, ${run.name}`;
  const head = make("thead", {}, dropLayers(run), dropExperts(run, columns));
  const table = make("table", {class: "data drops"}, make("caption", {class: "unseen"}, caption), head);
  table.append(make("tbody", {}, body));
  const box = scrollBox(caption, table);
  paintDrops(box);
  return make("div", {}, box, dropLegend(most));
}

function dropLayers(run) {
  const heads = run.layers.map((layer) =>
    make("th", {scope: "colgroup", colspan: String(run.experts)}, layer),
  );
  return make("tr", {class: "group-heads"}, make("td", {colspan: "2"}), heads);
}

function dropExperts(run, columns) {
  const heads = columns.map((column) => {
    const {layer, expert} = expertOf(run, column);
    const button = expertButton(run, layer, expert, String(expert));
    button.setAttribute("aria-label", expertName(run, layer, expert));
    const kind = expert ? "number" : "number first";
    return make("th", {scope: "col", class: kind, "data-label": String(expert)}, button);
  });
  return make(
    "tr",
    {},
    make("th", {scope: "col"}, "category"),
    make("th", {scope: "col", class: "number"}, "n"),
    heads,
  );
}

// Without the zero before the decimal point, to save width: .031, −.004.
function dropCell(run, value, most, column) {
  const text = fixed(value).replace(/^(−?)0\./, "$1.");
  const first = column % run.experts ? "" : " first";
  const {layer, expert} = expertOf(run, column);
  const cell = make("td", {class: `drop number${first}`, title: expertName(run, layer, expert)}, text);
  cell.signedValue = value;
  cell.most = most;
  return cell;
}

function paintDrops(within) {
  for (const cell of within.querySelectorAll(".drop, .drop-ramp i")) {
    if (cell.signedValue !== null) setStyle(cell, signedColours(cell.signedValue, cell.most));
  }
}

function dropLegend(most) {
  const steps = [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1].map((share) => {
    const piece = make("i");
    [piece.signedValue, piece.most] = [share, 1];
    return piece;
  });
  const ramp = make("span", {class: "drop-ramp", "aria-hidden": "true"}, steps);
  const node = make("p", {class: "weight-legend"}, `gain ${fixed(-most)}`, ramp, `${fixed(most)} drop`);
  paintDrops(node);
  return node;
}
