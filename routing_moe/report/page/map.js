// The heat map of one run: a canvas for the weights, elements for names and buttons. It is an ARIA grid with
// row heads, two rows of column heads, and a single cell element that moves with the cursor: thousands of
// cells would make the page slow, and only the cell under the cursor can have the focus.

import {make, setStyle} from "./dom.js";
import {drawHeat, isNewKind} from "./map_heat.js";
import {moveCursor, placeCell} from "./map_input.js";
import {columnOf, expertName, expertOf, kindColour, nearestTasks, TASKS} from "./model.js";
import {counted, sharedStart, shortened, shortenedFrom} from "./numbers.js";
import {PAPER_HEIGHT, PAPER_WIDTH} from "./print.js";
import {selectExpert, selectTask, taskButton} from "./state.js";

export const COARSE = matchMedia("(pointer: coarse)").matches;
const STRIPS = 34; // pixels beside a name: two colour strips and the rank of a neighbour
const SCROLL_BAR = 16;
const NEAR_ROWS = 8; // neighbours marked in the map

export function routeMap(run) {
  const map = {run, order: run.tasks, byKind: true, cursor: {row: 0, column: 0}, rows: new Map(), near: []};
  map.canvas = make("canvas", {"aria-hidden": "true"});
  map.columnMark = make("div", {class: "column-mark", hidden: true, "aria-hidden": "true"});
  map.hover = make("div", {class: "hover-mark", hidden: true, "aria-hidden": "true"});
  map.cell = make("div", {class: "map-cell", role: "gridcell"});
  map.body = make("div", {class: "map-body", role: "rowgroup"}, map.canvas, map.columnMark, map.hover);
  map.heads = [];
  map.grid = mapGrid(map);
  map.scroller = make("div", {class: "map-scroll"}, map.grid);
  for (const task of run.tasks) map.rows.set(task, mapRow(map, task));
  map.node = make("figure", {class: "map-figure"}, mapCaption(run), map.scroller);
  return map;
}

function mapCaption(run) {
  const sizes = [
    [run.tasks.length, "task"],
    [run.layers.length, "layer"],
    [run.experts, "expert"],
  ];
  const size = sizes.map(([number, name]) => counted(number, name)).join(" × ");
  return make("figcaption", {}, make("strong", {}, run.name), make("span", {}, size));
}

function mapGrid(map) {
  const {run} = map;
  const names = {
    role: "grid",
    class: "map",
    "aria-label": `Routes of ${run.name}: tasks by experts`,
    "aria-describedby": "map-keys",
    "aria-rowcount": String(run.tasks.length + 2),
    "aria-colcount": String(run.columns + 1),
  };
  return make("div", names, layerHeads(run), expertHeads(map), map.body);
}

function layerHeads(run) {
  const heads = run.layers.map((layer) => {
    const span = {"aria-colspan": String(run.experts), style: {"--span": String(run.experts)}};
    return make("span", {class: "layer-head", role: "columnheader", ...span}, layer);
  });
  return make("div", {class: "map-layers", role: "row", "aria-rowindex": "1"}, corner("layer"), heads);
}

function corner(text) {
  return make("span", {class: "map-corner", role: "columnheader"}, text);
}

function expertHeads(map) {
  const {run} = map;
  const cells = Array.from({length: run.columns}, (_, column) => {
    const {layer, expert} = expertOf(run, column);
    const pick = () => {
      moveCursor(map, -1, column, false);
      selectExpert(run, layer, expert);
    };
    const names = {"data-column": column, "aria-label": expertName(run, layer, expert)};
    const button = make("button", {type: "button", tabindex: "-1", onclick: pick, ...names}, String(expert));
    map.heads.push(button);
    const first = expert === 0 && layer > 0 ? " first" : "";
    return make("span", {class: `expert-head${first}`, role: "columnheader"}, button);
  });
  return make("div", {class: "map-experts", role: "row", "aria-rowindex": "2"}, corner("expert"), cells);
}

function mapRow(map, task) {
  const {name, category, subcategory} = TASKS[task];
  const strip = (colour) =>
    make("i", {class: "strip", style: {"background-color": colour}, "aria-hidden": "true"});
  const pick = () => {
    moveCursor(map, map.order.indexOf(task), -1, false);
    selectTask(task);
  };
  const button = taskButton(task, {
    class: "row-name",
    tabindex: "-1",
    onclick: pick,
    title: name,
    "aria-label": name,
  });
  const rank = make("span", {class: "rank", "aria-hidden": "true"});
  const strips = [strip(kindColour(category)), strip(kindColour(category, subcategory))];
  const head = make("div", {class: "row-head", role: "rowheader"}, button, rank, strips);
  return {node: make("div", {class: "map-row", role: "row"}, head), button, rank};
}

// ------------------------------------------------------------------ sizes

// Also called when the page's width changes: a map takes the available width and scrolls if it needs more.
export function layOut(map) {
  const {run} = map;
  const room = (map.strips ? PAPER_WIDTH : map.node.clientWidth) - 2;
  const numberWidth = run.experts > 10 ? 16 : 13;
  const legible = Math.max(COARSE ? 20 : numberWidth, Math.ceil(38 / run.experts)); // 38: a layer's name
  const fewest = map.strips ? 1 : legible; // paper cannot be scrolled
  map.rowHeight = COARSE ? 26 : run.tasks.length <= 40 ? 20 : 16;
  const fontSize = map.rowHeight <= 16 ? 11 : 12;
  const longest = longestName(map, fontSize) + STRIPS + 8;
  const least = Math.min(longest, Math.max(130, room * 0.22));
  const heat = room - SCROLL_BAR;
  // Full names take precedence up to a limit; the remaining width makes the cells wider.
  map.cellWidth = Math.max(fewest, Math.min(26, Math.floor((heat - Math.min(longest, 230)) / run.columns)));
  map.names = Math.round(Math.max(least, Math.min(longest, heat - map.cellWidth * run.columns)));
  const sizes = {
    "--names": map.names,
    "--cell": map.cellWidth,
    "--row": map.rowHeight,
    "--name-font": fontSize,
  };
  for (const [name, value] of Object.entries(sizes)) map.node.style.setProperty(name, `${value}px`);
  map.grid.style.width = `${map.names + map.cellWidth * run.columns}px`;
  nameRows(map, fontSize);
  if (map.cell.isConnected) placeCell(map, map.cursor.row, map.cursor.column);
  drawHeat(map);
  placeMarks(map);
}

function longestName(map, fontSize) {
  const pen = namePen(map, fontSize);
  return Math.ceil(Math.max(...map.run.tasks.map((task) => pen.measureText(TASKS[task].name).width)));
}

function namePen(map, fontSize) {
  const pen = map.canvas.getContext("2d");
  pen.font = `${fontSize}px ${getComputedStyle(document.body).fontFamily}`;
  return pen;
}

// Names that do not fit are shortened in the middle, or elsewhere if two would then look the same.
function nameRows(map, fontSize) {
  const pen = namePen(map, fontSize);
  const room = map.names - STRIPS - 12;
  const fit = (name, cut) => {
    let kept = Array.from(name).length;
    let text = name;
    while (kept > 4 && pen.measureText(text).width > room) {
      kept -= 1;
      text = cut(name, kept);
    }
    return text;
  };
  const names = map.run.tasks.map((task) => TASKS[task].name);
  const texts = new Map(names.map((name) => [name, fit(name, shortened)]));
  const shownAlike = (text) => [...texts.keys()].filter((name) => texts.get(name) === text);
  const families = [...new Set(texts.values())].map(shownAlike);
  for (const family of families.filter((members) => members.length > 1)) {
    const start = sharedStart(family);
    const cuts = [
      (name, kept) => shortened(name, kept, 0.8),
      (name, kept) => shortened(name, kept, 0.2),
      (name, kept) => shortenedFrom(start, name, kept),
    ];
    const tried = cuts.map((cut) => family.map((name) => fit(name, cut)));
    const apart = tried.find((shown) => new Set(shown).size === family.length) ?? tried.at(-1);
    for (const [place, name] of family.entries()) texts.set(name, apart[place]);
  }
  for (const [task, {button}] of map.rows) button.textContent = texts.get(TASKS[task].name);
}

export function setOrder(map, order, byKind) {
  const task = map.order[map.cursor.row];
  map.order = order.filter((entry) => map.run.rowOf.has(entry));
  map.byKind = byKind;
  if (task !== undefined) map.cursor.row = map.order.indexOf(task);
  placeRows(map);
  drawHeat(map);
}

export function placeRows(map) {
  const nodes = map.order.map((task, place) => {
    const {node} = map.rows.get(task);
    node.setAttribute("aria-rowindex", String(place + 3));
    node.classList.toggle("new-kind", map.byKind && place > 0 && isNewKind(map, place));
    return node;
  });
  map.body.append(...nodes);
  moveCursor(map, map.cursor.row, map.cursor.column, false);
}

// A canvas that crosses a page break would be shifted against the names beside it, so each row gets its own.
export function fitMapToPaper(map, on) {
  for (const strip of map.strips?.values() ?? []) strip.remove();
  map.strips = on ? new Map(map.order.map((task) => [task, make("canvas", {class: "heat-strip"})])) : null;
  for (const [task, strip] of map.strips ?? []) map.rows.get(task).node.append(strip);
  layOut(map);
  map.node.classList.toggle("in-strips", on);
  map.node.classList.toggle("fits-page", on && map.grid.offsetHeight < PAPER_HEIGHT);
  map.node.classList.toggle("tiny-cells", on && map.cellWidth < 9);
}

// ------------------------------------------------------------------ marks of the selection

export function markSelection(map, chosen) {
  map.chosen = chosen;
  const isTask = chosen?.kind === "task" && map.run.rowOf.has(chosen.task);
  map.near = isTask ? nearestTasks(map.run, chosen.task).slice(0, NEAR_ROWS) : [];
  const ranks = new Map(map.near.map(([task], index) => [task, index + 1]));
  for (const [task, row] of map.rows) {
    const own = isTask && task === chosen.task;
    row.node.classList.toggle("is-selected", own);
    row.node.classList.toggle("is-near", ranks.has(task));
    row.rank.textContent = own ? "▸" : String(ranks.get(task) ?? "");
    row.button.setAttribute("aria-pressed", String(own));
  }
  placeMarks(map);
  if (isTask) scrollToRow(map, map.order.indexOf(chosen.task));
}

function placeMarks(map) {
  const {run, chosen} = map;
  const here = chosen?.kind === "expert" && chosen.run === run.index;
  const column = here ? columnOf(run, chosen.layer, chosen.expert) : -1;
  for (const [place, head] of map.heads.entries())
    head.setAttribute("aria-pressed", String(place === column));
  map.columnMark.hidden = !here;
  if (!here) return;
  const left = map.names + column * map.cellWidth;
  setStyle(map.columnMark, {left: `${left}px`, width: `${map.cellWidth}px`});
  const {scroller} = map;
  const hiddenBy = left + map.cellWidth - scroller.scrollLeft - scroller.clientWidth;
  if (hiddenBy > 0) scroller.scrollLeft += hiddenBy + map.cellWidth;
  if (left - scroller.scrollLeft < map.names) scroller.scrollLeft = left - map.names - map.cellWidth;
}

// Scrolls the map's box only, not the page.
function scrollToRow(map, place) {
  const {scroller, rowHeight} = map;
  const headHeight = map.body.offsetTop;
  const top = headHeight + place * rowHeight;
  if (top - scroller.scrollTop < headHeight) scroller.scrollTop = top - headHeight - rowHeight;
  const hiddenBy = top + 2 * rowHeight - scroller.scrollTop - scroller.clientHeight;
  if (hiddenBy > 0) scroller.scrollTop += hiddenBy;
}
