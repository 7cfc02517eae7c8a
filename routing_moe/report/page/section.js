// Sections and their common parts.

import {byId, choice, labelled, make} from "./dom.js";
import {RUNS} from "./model.js";

// A section with a heading and an entry in the navigation.
export function section(id, title, ...children) {
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

export function lead(text) {
  return make("p", {class: "lead"}, text);
}

// Select for one of several runs; null if there is only one.
export function runChoice(runs, act) {
  if (runs.length < 2) return null;
  return labelled(
    "run",
    choice(
      runs.map((run) => [run.index, run.name]),
      (index) => act(RUNS[index]),
    ),
  );
}
