// Changes for printing: colours, and the sizes of everything that is as wide as the screen.

import {paintForPaper} from "./colour.js";

export const PAPER_WIDTH = 940; // CSS pixels of A4 or Letter in landscape, without margins
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
