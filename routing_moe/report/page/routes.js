// The section of the route maps: their order, legends, and the maps side by side.

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
  // Small maps stand three side by side on a desktop, large ones two: else they would show too little.
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
  "How much each task (row) leans on each expert of each layer (column). Choose a name for a task's " +
  "nearest neighbours, scores and predictions, or an expert's number for its tasks.";

function mapKeys() {
  const text =
    "Arrows move from cell to cell, Home and End to the ends of a row (with Ctrl of the map), Page Up " +
    "and Page Down by ten rows, Enter selects the task, e the expert, Escape clears.";
  const summary = make("summary", {}, "Keys on a map");
  return make("details", {class: "legend keys"}, summary, make("p", {class: "lead", id: "map-keys"}, text));
}

function mapTools(maps) {
  const orders = ROUTED.map((run) => [
    run.index,
    `similarity of route${RUNS.length > 1 ? ` in ${run.name}` : ""}`,
  ]);
  const reorder = (value) => {
    const run = RUNS[Number(value)];
    const order = value === "kind" ? TASKS.map((_, task) => task) : wholeOrder(run);
    for (const map of maps) {
      setOrder(map, value === "kind" ? map.run.tasks : order, value === "kind");
      markSelection(map, selection);
    }
  };
  const orderChoice = choice([["kind", "kind of task"], ...orders], reorder, {id: "map-order"});
  return make("div", {class: "tools"}, labelled("order of tasks", orderChoice), weightLegend());
}

// A run's tasks by similarity, then those that only other runs have: rows of several maps stay level.
function wholeOrder(run) {
  return [...run.order, ...[...TASKS.keys()].filter((task) => !run.rowOf.has(task))];
}

function weightLegend() {
  const ramp = make("span", {class: "ramp", "aria-hidden": "true"});
  painted(() => setStyle(ramp, {"background-image": gradient(HEAT[scheme()])}));
  return make("p", {class: "weight-legend"}, "weight 0", ramp, "1");
}

// Kinds of the tasks that are drawn, each colour with its name.
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
  return make(
    "details",
    {class: "legend", open},
    make("summary", {}, "Colours of the kinds of task"),
    legend,
  );
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
          // Setting the same value fires no event, so this comes to rest.
          if (other !== map && other.scroller.scrollTop !== map.scroller.scrollTop) {
            other.scroller.scrollTop = map.scroller.scrollTop;
          }
        }
      },
      {passive: true},
    );
  }
}
