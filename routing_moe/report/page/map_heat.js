// The weights of a map on its canvas; on paper, a canvas for each row.

import {heatColour, heatTable, LINES, scheme} from "./colour.js";
import {setStyle} from "./dom.js";
import {TASKS} from "./model.js";

const LARGEST_CANVAS = 8192; // pixels a side; browsers draw nothing on larger ones

export function drawHeat(map) {
  if (map.strips) {
    stripsOfHeat(map);
    return;
  }
  const {run, canvas, cellWidth, rowHeight} = map;
  const [width, height] = [cellWidth * run.columns, rowHeight * map.order.length];
  const dense = Math.min(window.devicePixelRatio || 1, LARGEST_CANVAS / Math.max(width, height, 1));
  canvas.width = Math.round(width * dense);
  canvas.height = Math.round(height * dense);
  setStyle(canvas, {width: `${width}px`, height: `${height}px`});
  const pen = canvas.getContext("2d");
  pen.scale(canvas.width / width, canvas.height / height);
  for (const [place, task] of map.order.entries()) drawRowOfHeat(map, pen, task, place * rowHeight);
  drawSeams(map, pen, height);
  pen.fillStyle = LINES[scheme()].grid;
  for (const place of map.order.keys()) {
    if (map.byKind && place > 0 && isNewKind(map, place)) pen.fillRect(0, place * rowHeight - 0.5, width, 1);
  }
}

function stripsOfHeat(map) {
  const [width, height] = [map.cellWidth * map.run.columns, map.rowHeight];
  for (const [task, strip] of map.strips) {
    const dense = Math.min(2, LARGEST_CANVAS / width);
    strip.width = Math.round(width * dense);
    strip.height = Math.round(height * dense);
    setStyle(strip, {width: `${width}px`, height: `${height}px`});
    const pen = strip.getContext("2d");
    pen.scale(strip.width / width, strip.height / height);
    drawRowOfHeat(map, pen, task, 0);
    drawSeams(map, pen, height);
  }
}

function drawRowOfHeat({run, cellWidth, rowHeight}, pen, task, top) {
  const colours = heatTable();
  run.routes[run.rowOf.get(task)].forEach((weight, column) => {
    pen.fillStyle = heatColour(colours, weight);
    pen.fillRect(column * cellWidth, top, cellWidth, rowHeight);
  });
}

// Lines between layers.
function drawSeams(map, pen, height) {
  const {run} = map;
  const {grid, border} = LINES[scheme()];
  for (let layer = 1; layer < run.layers.length; layer += 1) {
    // A thicker line between encoder and decoder, as in the pictures.
    const isSeam = run.layers[layer].split(" ")[0] !== run.layers[layer - 1].split(" ")[0];
    pen.fillStyle = isSeam ? border : grid;
    const thick = isSeam ? 2 : 1;
    pen.fillRect(layer * run.experts * map.cellWidth - thick / 2, 0, thick, height);
  }
}

export function isNewKind(map, place) {
  return TASKS[map.order[place]].category !== TASKS[map.order[place - 1]].category;
}
