// The section of the route maps: order of tasks, legends, and the maps side by side.

import {gradient, HEAT, painted, scheme} from "./colour.js";
import {choice, followWidth, labelled, make, patch, setStyle} from "./dom.js";
import {fitMapToPaper, layOut, markSelection, placeRows, routeMap, setOrder} from "./map.js";
import {drawHeat} from "./map_heat.js";
import {listenTo} from "./map_input.js";
import {byCategory, kindColour, ROUTED, RUNS, TASKS} from "./model.js";
import {onPrint} from "./print.js";
import {lead, section} from "./section.js";
import {onSelect, selection} from "./state.js";

export function routesSection() {
  if (!ROUTED.length) return;
  const maps = ROUTED.map(routeMap);
  const several = ROUTED.length > 1 ? " several" : "";
  const grid = make(
    "div",
    {class: `maps${several}`},
    maps.map((map) => map.node),
  );
  // On a desktop, three small maps fit side by side, but only two large ones.
  const small = ROUTED.every((run) => run.layers.length * run.experts <= 24);
  grid.style.setProperty("--least-map", small ? "380px" : "600px");
  section("routes", "Routes", lead(ROUTES_LEAD), mapTools(maps), mapKeys(), kindLegend(), grid);
  for (const map of maps) {
    layOut(map);
    placeRows(map);
    painted(() => drawHeat(map));
    listenTo(map);
  }
  onSelect((chosen) => {
    for (const map of maps) markSelection(map, chosen);
  });
  if (sameTasks()) scrollTogether(maps);
  followWidth(() => maps.forEach(layOut));
  onPrint((on) => {
    for (const map of maps) fitMapToPaper(map, on);
  });
}

const ROUTES_LEAD =
  "The weight that each task (row) gives to each expert of each layer (column). Select a task's name for " +
  "its nearest tasks, scores and predictions, or an expert's number for its tasks.";

function mapKeys() {
  const text =
    "Arrow keys move by a cell, Home and End to the ends of a row (with Ctrl: of the map), Page Up and " +
    "Page Down by ten rows. Enter selects the task, e the expert, Escape clears the selection.";
  const summary = make("summary", {}, "Keys of a map");
  return make("details", {class: "legend keys"}, summary, make("p", {class: "lead", id: "map-keys"}, text));
}

function mapTools(maps) {
  const orders = ROUTED.map((run) => [
    run.index,
    `similarity of routes${RUNS.length > 1 ? ` in ${run.name}` : ""}`,
  ]);
  const reorder = (value) => {
    const run = RUNS[Number(value)];
    const order = value === "kind" ? TASKS.map((_, task) => task) : wholeOrder(run);
    for (const map of maps) {
      setOrder(map, value === "kind" ? map.run.tasks : order, value === "kind");
      markSelection(map, selection);
    }
  };
  const orderChoice = choice([["kind", "category"], ...orders], reorder, {id: "map-order"});
  return make("div", {class: "tools"}, labelled("order of tasks", orderChoice), weightLegend());
}

// A run's tasks by similarity, then those of other runs only, so that rows of several maps stay aligned.
function wholeOrder(run) {
  return [...run.order, ...[...TASKS.keys()].filter((task) => !run.rowOf.has(task))];
}

function weightLegend() {
  const ramp = make("span", {class: "ramp", "aria-hidden": "true"});
  painted(() => setStyle(ramp, {"background-image": gradient(HEAT[scheme()])}));
  return make("p", {class: "weight-legend"}, "weight 0", ramp, "1");
}

// Categories and subcategories of the drawn tasks with their colours.
function kindLegend() {
  const drawn = new Set(ROUTED.flatMap((run) => run.tasks));
  const groups = byCategory([...drawn].sort((a, b) => a - b)).map(([category, tasks]) => {
    const subs = [...new Set(tasks.map((task) => TASKS[task].subcategory))];
    const entries = subs.map((sub) => make("li", {}, patch(kindColour(category, sub)), sub));
    const name = make("strong", {}, patch(kindColour(category)), category);
    return make("li", {}, name, make("ul", {}, entries));
  });
  const legend = make("ul", {class: "kinds"}, groups);
  const open = window.innerWidth > 700;
  return make("details", {class: "legend", open}, make("summary", {}, "Colours of categories"), legend);
}

function sameTasks() {
  return ROUTED.every((run) => run.tasks.length === ROUTED[0].tasks.length);
}

function scrollTogether(maps) {
  for (const map of maps) {
    map.scroller.addEventListener(
      "scroll",
      () => {
        for (const other of maps) {
          // Setting the same value fires no event, so this ends.
          if (other !== map && other.scroller.scrollTop !== map.scroller.scrollTop) {
            other.scroller.scrollTop = map.scroller.scrollTop;
          }
        }
      },
      {passive: true},
    );
  }
}
