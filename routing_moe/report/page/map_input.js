// Pointer and keyboard on a map. One element of a map is in the tab order (a "roving" tabindex): a cell, the
// name of a row (column -1) or the head of a column (row -1); arrow keys move it.

import {setStyle} from "./dom.js";
import {expertOf, TASKS, weightAt} from "./model.js";
import {fixed} from "./numbers.js";
import {selectExpert, selectTask} from "./state.js";
import {hideTip, showTip} from "./tip.js";

const LEAP = 10; // rows that Page Up and Page Down move

function cellText(map, row, column) {
  const {run} = map;
  const task = map.order[row];
  const {layer, expert} = expertOf(run, column);
  const weight = fixed(weightAt(run, run.rowOf.get(task), column));
  return [TASKS[task].name, `${run.layers[layer]}, expert ${expert}`, `weight ${weight}`];
}

// focus: whether to move the keyboard focus too.
export function moveCursor(map, row, column, focus = true) {
  const before = cursorNode(map);
  before?.setAttribute("tabindex", "-1");
  map.cursor = {row, column};
  if (row >= 0 && column >= 0) placeCell(map, row, column);
  else map.cell.remove();
  const node = cursorNode(map);
  node.setAttribute("tabindex", "0");
  if (focus) node.focus();
}

function cursorNode(map) {
  const {row, column} = map.cursor;
  if (row < 0) return map.heads[column];
  return column < 0 ? map.rows.get(map.order[row])?.button : map.cell;
}

export function placeCell(map, row, column) {
  map.cell.style.setProperty("left", `${map.names + column * map.cellWidth}px`);
  map.cell.setAttribute("aria-colindex", String(column + 2));
  map.cell.setAttribute("aria-label", cellText(map, row, column).join(", "));
  const {node} = map.rows.get(map.order[row]);
  if (map.cell.parentNode !== node) node.append(map.cell);
}

// ------------------------------------------------------------------ keyboard

// The [row, column] that a key moves the cursor to, or null for other keys. whole: with Ctrl.
function moved(map, key, whole) {
  const {row, column} = map.cursor;
  const [lastRow, lastColumn] = [map.order.length - 1, map.run.columns - 1];
  const moves = {
    ArrowUp: () => [Math.max(column < 0 ? 0 : -1, row - 1), column],
    ArrowDown: () => [Math.min(lastRow, row + 1), column],
    ArrowLeft: () => [row, Math.max(row < 0 ? 0 : -1, column - 1)],
    ArrowRight: () => [row, Math.min(lastColumn, column + 1)],
    Home: () => [whole ? 0 : row, 0],
    End: () => [whole ? lastRow : row, lastColumn],
    PageUp: () => [Math.max(0, row - LEAP), column],
    PageDown: () => [Math.min(lastRow, row + LEAP), column],
  };
  return Object.hasOwn(moves, key) ? moves[key]() : null;
}

function onMapKey(map, event) {
  if (event.altKey || event.metaKey) return;
  const next = moved(map, event.key, event.ctrlKey);
  if (next) {
    moveCursor(map, ...next);
    tipAtCursor(map);
  } else if (!event.ctrlKey && !actAtCursor(map, event.key, event.target)) return;
  event.preventDefault();
}

// The buttons of names and heads handle Enter themselves; the cell is not a button.
function actAtCursor(map, key, target) {
  const {row, column} = map.cursor;
  if ((key === "Enter" || key === " ") && target === map.cell) {
    selectTask(map.order[row]);
    return true;
  }
  if ((key === "e" || key === "E") && column >= 0) {
    const {layer, expert} = expertOf(map.run, column);
    selectExpert(map.run, layer, expert);
    return true;
  }
  return false;
}

function tipAtCursor(map) {
  const {row, column} = map.cursor;
  if (row < 0 || column < 0) hideTip();
  else tipAt(map, row, column);
}

function tipAt(map, row, column) {
  const box = map.canvas.getBoundingClientRect();
  const left = box.left + column * map.cellWidth;
  const top = box.top + row * map.rowHeight;
  const [task, expert, weight] = cellText(map, row, column);
  const {category, subcategory} = TASKS[map.order[row]];
  const place = {left, top, right: left + map.cellWidth, bottom: top + map.rowHeight};
  showTip([task, `${expert}, ${weight}`, `${category}: ${subcategory}`], place);
  markHover(map, row, column);
}

function markHover(map, row, column) {
  map.hover.hidden = false;
  setStyle(map.hover, {
    left: `${map.names + column * map.cellWidth}px`,
    top: `${row * map.rowHeight}px`,
    width: `${map.cellWidth}px`,
    height: `${map.rowHeight}px`,
  });
  map.hoveredHead?.classList.remove("is-hovered");
  map.hoveredHead = map.heads[column];
  map.hoveredHead.classList.add("is-hovered");
}

function leave(map) {
  hideTip();
  map.hover.hidden = true;
  map.hoveredHead?.classList.remove("is-hovered");
}

// ------------------------------------------------------------------ pointer

// The cell under a pointer event; null over names, which cover cells when the map is scrolled sideways.
function cellUnder(map, event) {
  if (event.target.closest(".row-head")) return null;
  const box = map.canvas.getBoundingClientRect();
  const row = Math.floor((event.clientY - box.top) / map.rowHeight);
  const column = Math.floor((event.clientX - box.left) / map.cellWidth);
  const inside = row >= 0 && row < map.order.length && column >= 0 && column < map.run.columns;
  return inside ? {row, column} : null;
}

function onHover(map, event) {
  const cell = cellUnder(map, event);
  if (cell) tipAt(map, cell.row, cell.column);
  else leave(map);
}

// A mouse shows the tip before it clicks; of a finger, the first tap shows it and the second selects.
function onCellClick(map, event) {
  const cell = cellUnder(map, event);
  if (!cell) return;
  const {row, column} = map.cursor;
  const isFirstTap = map.pointer === "touch" && (row !== cell.row || column !== cell.column);
  moveCursor(map, cell.row, cell.column, !isFirstTap);
  if (isFirstTap) tipAt(map, cell.row, cell.column);
  else selectTask(map.order[cell.row]);
}

export function listenTo(map) {
  map.grid.addEventListener("keydown", (event) => onMapKey(map, event));
  map.grid.addEventListener("focusout", () => leave(map));
  map.grid.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && tipAtCursor(map));
  map.body.addEventListener("pointerdown", (event) => {
    map.pointer = event.pointerType; // not every browser's click event has it
  });
  map.body.addEventListener("pointermove", (event) => event.pointerType !== "touch" && onHover(map, event));
  map.body.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && leave(map));
  map.body.addEventListener("click", (event) => onCellClick(map, event));
  map.scroller.addEventListener("scroll", () => leave(map), {passive: true});
}
