// What is selected: null, {kind: "task", task} or {kind: "expert", run, layer, expert}. Views that
// show it call onSelect.

import {announce, make} from "./dom.js";
import {expertName, TASKS} from "./model.js";

export let selection = null;
const listeners = [];

export function onSelect(listen) {
  listeners.push(listen);
}

function select(next) {
  selection = next;
  for (const listen of listeners) listen(next);
}

export function selectTask(task) {
  select({kind: "task", task});
  announce(`Selected the task ${TASKS[task].name}. Details follow the route maps.`);
}

export function selectExpert(run, layer, expert) {
  select({kind: "expert", run: run.index, layer, expert});
  announce(`Selected ${expertName(run, layer, expert)} of ${run.name}. Details follow the route maps.`);
}

export function clearSelection() {
  if (selection) announce("Selection cleared.");
  select(null);
}

export function taskButton(task, attributes = {}) {
  const {name} = TASKS[task];
  const pick = () => selectTask(task);
  return make(
    "button",
    {type: "button", class: "link", onclick: pick, "data-task": task, ...attributes},
    name,
  );
}

export function expertButton(run, layer, expert, text = expertName(run, layer, expert)) {
  const pick = () => selectExpert(run, layer, expert);
  return make("button", {type: "button", class: "link", onclick: pick}, text);
}
