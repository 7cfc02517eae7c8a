// What changes for paper: colours, and the sizes of all that is as wide as the screen was.

const PAPER_WIDTH = 940; // CSS pixels across a sheet of A4 or Letter that lies on its side, less its margins
const PAPER_HEIGHT = 640;

// act(true) before printing, act(false) after.
function onPrint(act) {
  window.addEventListener("beforeprint", () => act(true));
  window.addEventListener("afterprint", () => act(false));
}

function followPrint() {
  onPrint(paintForPaper);
  onPrint((on) => {
    for (const table of document.querySelectorAll("table.data")) fitToPaper(table, on);
  });
}

// Paper cannot be scrolled: a table that is too wide is printed smaller.
function fitToPaper(table, on) {
  const scale = on ? Math.min(1, PAPER_WIDTH / Math.max(1, table.offsetWidth)) : 1;
  table.style.zoom = scale < 1 ? scale.toFixed(3) : "";
}

// A canvas that goes over a page's end would be shifted against the names beside it, so each row brings its
// own piece.
function fitMapToPaper(map, on) {
  for (const strip of map.strips?.values() ?? []) strip.remove();
  map.strips = on ? new Map(map.order.map((task) => [task, make("canvas", {class: "heat-strip"})])) : null;
  for (const [task, strip] of map.strips ?? []) map.rows.get(task).node.append(strip);
  layOut(map);
  map.node.classList.toggle("in-strips", on);
  map.node.classList.toggle("fits-page", on && map.grid.offsetHeight < PAPER_HEIGHT);
  map.node.classList.toggle("tiny-cells", on && map.cellWidth < 9);
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
