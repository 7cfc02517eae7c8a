// What is selected: null, {kind: "task", task} or {kind: "expert", run, layer, expert}. Whoever shows it
// listens.

let selection = null;
const listeners = [];

function onSelect(listen) {
  listeners.push(listen);
}

function select(next) {
  selection = next;
  for (const listen of listeners) listen(next);
}

function selectTask(task) {
  select({kind: "task", task});
  announce(`Selected the task ${TASKS[task].name}. Details follow the maps of routes.`);
}

function selectExpert(run, layer, expert) {
  select({kind: "expert", run: run.index, layer, expert});
  announce(`Selected ${expertName(run, layer, expert)} of ${run.name}. Details follow the maps of routes.`);
}

function clearSelection() {
  if (selection) announce("Selection cleared.");
  select(null);
}

function announce(text) {
  byId("live").textContent = text;
}

function taskButton(task, attributes = {}) {
  const {name} = TASKS[task];
  const pick = () => selectTask(task);
  return make(
    "button",
    {type: "button", class: "link", onclick: pick, "data-task": task, ...attributes},
    name,
  );
}

function expertButton(run, layer, expert, text = expertName(run, layer, expert)) {
  const pick = () => selectExpert(run, layer, expert);
  return make("button", {type: "button", class: "link", onclick: pick}, text);
}

// ------------------------------------------------------------------ the little box beside the pointer

// lines: the first stands out; place: {left, top, right, bottom} of what it explains, in the window.
function showTip(lines, place) {
  const tip = byId("tip");
  tip.replaceChildren(...lines.map((line, index) => make(index ? "span" : "strong", {}, line)));
  tip.hidden = false;
  const {width, height} = tip.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  const left = Math.max(4, Math.min(place.right + 10, room - width - 4));
  const above = place.top - height - 8;
  setStyle(tip, {left: `${left}px`, top: `${above > 4 ? above : place.bottom + 10}px`});
}

function hideTip() {
  byId("tip").hidden = true;
}

// ------------------------------------------------------------------ sections

// A section with a heading and an entry in the navigation.
function section(id, title, ...children) {
  const heading = `${id}-heading`;
  byId("nav").append(make("a", {href: `#${id}`}, title));
  const node = make(
    "section",
    {id, "aria-labelledby": heading},
    make("h2", {id: heading}, title),
    ...children,
  );
  byId("content").append(node);
  return node;
}

function lead(text) {
  return make("p", {class: "lead"}, text);
}

// Select for one of several runs; null when there is but one to choose.
function runChoice(runs, act) {
  if (runs.length < 2) return null;
  return labelled(
    "run",
    choice(
      runs.map((run) => [run.index, run.name]),
      (index) => act(RUNS[index]),
    ),
  );
}
