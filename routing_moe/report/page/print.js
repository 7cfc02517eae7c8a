// What changes for paper: colours, and the sizes of all that is as wide as the screen was.

import {paintForPaper} from "./colour.js";

export const PAPER_WIDTH = 940; // CSS pixels across a sheet of A4 or Letter that lies on its side, less its margins
export const PAPER_HEIGHT = 640;

// act(true) before printing, act(false) after.
export function onPrint(act) {
  window.addEventListener("beforeprint", () => act(true));
  window.addEventListener("afterprint", () => act(false));
}

export function followPrint() {
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
