// The panel at the window's lower edge: details of the selected task or expert.

import {bar, byId, make, numberText, patch, scrollBox} from "./dom.js";
import {
  byCategory,
  columnOf,
  dropOf,
  expertName,
  firstChoices,
  kindColour,
  loadOf,
  meanDrop,
  nearestTasks,
  ROUTED,
  RUNS,
  runSuffix,
  sampleName,
  TASKS,
  tasksOfExpert,
  weightAt,
} from "./model.js";
import {counted, fixed, mean, percent, probability, signed, UNKNOWN} from "./numbers.js";
import {joinedSamples, sampleNode} from "./predictions.js";
import {lead} from "./section.js";
import {clearSelection, onSelect, taskButton} from "./state.js";
import {plainTable} from "./table.js";

const SAMPLES_SHOWN = 3;
const FEATURES_SHOWN = 10;

export function detailPanel() {
  const title = make("h2", {id: "detail-heading", tabindex: "-1"});
  const close = make("button", {type: "button", class: "quiet", onclick: clearSelection}, "Close");
  const blocks = make("div", {class: "blocks", role: "group", tabindex: "0", "aria-label": "Details"});
  const head = make("div", {class: "detail-head"}, title, close);
  const panel = make(
    "aside",
    {id: "detail", "aria-labelledby": "detail-heading", hidden: true},
    head,
    blocks,
  );
  const anchor = byId("routes");
  if (anchor) anchor.after(panel);
  else byId("content").append(panel);
  const view = {panel, title, blocks, opener: null};
  onSelect((chosen) => showDetail(view, chosen));
  document.addEventListener("keydown", (event) => {
    // In a field, Escape belongs to the field: it clears a search.
    if (event.key === "Escape" && !event.target.closest?.("input, select")) clearSelection();
  });
}

function showDetail(view, chosen) {
  const {panel, title, blocks} = view;
  const focused = document.activeElement;
  const byKeyboard = focused.matches(":focus-visible");
  const within = panel.contains(focused);
  const opens = chosen && panel.hidden;
  panel.hidden = !chosen;
  if (chosen) {
    title.textContent = chosen.kind === "task" ? TASKS[chosen.task].name : expertTitle(chosen);
    blocks.replaceChildren(...(chosen.kind === "task" ? taskBlocks(chosen.task) : expertBlocks(chosen)));
    blocks.scrollTop = 0;
  }
  makeRoom(panel.offsetHeight);
  if (!chosen) giveFocusBack(view, within, byKeyboard);
  else if (!within) view.opener = focused === document.body ? null : focused;
  // From a map, the panel is the next Tab stop; from elsewhere it gets the focus.
  if (chosen && byKeyboard && !focused.closest(".map")) title.focus();
  // The panel must not cover the element that was just selected.
  else if (opens && focused !== document.body) focused.scrollIntoView({block: "nearest"});
}

// Lets the page scroll far enough that the panel covers nothing. These are plain properties because a custom
// property of the root would make the browser compute the style of every element again.
function makeRoom(height) {
  document.body.style.paddingBottom = `${height}px`;
  document.documentElement.style.scrollPaddingBottom = `${height + 12}px`;
}

function giveFocusBack(view, within, byKeyboard) {
  if (within && view.opener?.isConnected) view.opener.focus({preventScroll: !byKeyboard});
  view.opener = null;
}

function block(title, ...children) {
  return make("section", {class: "block"}, make("h3", {}, title), ...children);
}

// ------------------------------------------------------------------ a task

function taskBlocks(task) {
  const nearest = ROUTED.filter((run) => run.rowOf.has(task)).map((run) => nearestBlock(run, task));
  return [aboutBlock(task), ...nearest, samplesBlock(task)].filter(Boolean);
}

function aboutBlock(task) {
  const {category, subcategory, features} = TASKS[task];
  const kind = make("p", {}, patch(kindColour(category, subcategory)), `${category}: ${subcategory}`);
  const chips = features.map((feature) => make("li", {}, feature));
  const list = chips.length
    ? make("ul", {class: "chips"}, chips)
    : make("p", {class: "lead"}, "no known features");
  return block("Category and features", kind, list, ...taskScoreTable(task));
}

function nearestBlock(run, task) {
  const items = nearestTasks(run, task).map(([near, overlap]) => {
    const colour = patch(kindColour(TASKS[near].category, TASKS[near].subcategory));
    return make("li", {}, colour, taskButton(near), bar(overlap), numberText(fixed(overlap)));
  });
  const list = make("ol", {class: "ranked", "data-run": run.index}, items);
  return block(`Nearest by route${runSuffix(run)}`, list, lead("overlap of routes; 1 for equal routes"));
}

function taskScoreTable(task) {
  const found = [];
  for (const run of RUNS) {
    for (const {part, rows: scores} of run.scores) {
      const own = scores.filter(([scored]) => scored === task);
      found.push(...own.map(([, sample, ...numbers]) => ({run, part, sample, numbers})));
    }
  }
  if (!found.length) return [];
  const several = new Set(found.map(({sample}) => sample)).size > 1;
  const rows = found.map(({run, part, sample, numbers: [metric, score, n, constant]}) => {
    const cells = [run.name, part, fixed(score), fixed(constant), String(n ?? UNKNOWN), metric];
    return several ? [...cells, sampleName(task, sample)] : cells;
  });
  const heads = [["run"], ["part"], ["score", true], ["constant", true], ["n", true], ["metric"]];
  if (several) heads.push(["sample"]);
  const caption = `Scores of ${TASKS[task].name}`;
  return [make("h3", {}, "Scores"), scrollBox(caption, plainTable(caption, heads, rows))];
}

function samplesBlock(task) {
  const entries = joinedSamples(task).slice(0, SAMPLES_SHOWN);
  return entries.length ? block("Predictions", entries.map(sampleNode)) : null;
}

// ------------------------------------------------------------------ an expert

function expertTitle({run, layer, expert}) {
  return `${expertName(RUNS[run], layer, expert)}${runSuffix(RUNS[run])}`;
}

function expertBlocks(chosen) {
  const run = RUNS[chosen.run];
  const column = columnOf(run, chosen.layer, chosen.expert);
  return [
    expertTasksBlock(run, column),
    loadBlock(run, column),
    expertFeaturesBlock(run, chosen.layer, chosen.expert),
  ].filter(Boolean);
}

function expertTasksBlock(run, column) {
  const even = 1 / run.experts;
  const items = tasksOfExpert(run, column).map(({task, weight}) => {
    const colour = patch(kindColour(TASKS[task].category, TASKS[task].subcategory));
    const weak = weight < even ? "weak" : null;
    return make("li", {class: weak}, colour, taskButton(task), bar(weight), numberText(fixed(weight)));
  });
  const note = `paler: below a uniform weight, 1/${run.experts}`;
  const list = make("ol", {class: "ranked many", "data-column": column}, items);
  const node = block("Tasks by weight", lead(note), list);
  node.classList.add("broad");
  return node;
}

// Load and, if the expert was ablated, its drop: over all tasks and by category.
function loadBlock(run, column) {
  const ablated = run.ablation?.tasks.length > 0;
  const first = `${firstChoices(run, column)} of ${counted(run.tasks.length, "task")}`;
  const text = `${percent(loadOf(run, column))} of all weight in its layer; first choice of ${first}.`;
  const groups = [["all", run.tasks], ...byCategory(run.tasks)];
  const rows = groups.map(([name, tasks]) => {
    const weight = mean(tasks.map((task) => weightAt(run, run.rowOf.get(task), column)));
    const cells = [name, String(tasks.length), fixed(weight)];
    if (!ablated) return cells;
    const scored = tasks.filter((task) => dropOf(run, column, task) !== null);
    return [...cells, signed(meanDrop(run, column, scored)), String(scored.length)];
  });
  const heads = [["category"], ["n", true], ["mean weight", true]];
  if (ablated) heads.push(["drop", true], ["n scored", true]);
  const unit = ablated && lead(`drop: mean ${run.ablation.part} score before minus after ablation`);
  const table = scrollBox("Load by category", plainTable("Load by category", heads, rows));
  return block("Load", make("p", {class: "load"}, text), table, unit);
}

function expertFeaturesBlock(run, layer, expert) {
  const found = run.correlations?.rows.filter((row) => row[1] === layer && row[2] === expert) ?? [];
  if (!found.length) return null;
  const rows = found.slice(0, FEATURES_SHOWN).map(([feature, , , r, , q, n]) => {
    return [feature, signed(r, 2), probability(q), String(n ?? UNKNOWN)];
  });
  const heads = [["feature"], ["r", true], ["q", true], ["n", true]];
  const table = scrollBox("Correlated features", plainTable("Correlated features", heads, rows));
  return block("Correlated features", table);
}
