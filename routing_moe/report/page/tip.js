// The tooltip of a map's cells.

import {byId, make, setStyle} from "./dom.js";

// lines: the first is bold; place: {left, top, right, bottom} of the explained cell, in the window.
export function showTip(lines, place) {
  const tip = byId("tip");
  tip.replaceChildren(...lines.map((line, index) => make(index ? "span" : "strong", {}, line)));
  tip.hidden = false;
  const {width, height} = tip.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  const left = Math.max(4, Math.min(place.right + 10, room - width - 4));
  const above = place.top - height - 8;
  setStyle(tip, {left: `${left}px`, top: `${above > 4 ? above : place.bottom + 10}px`});
}

export function hideTip() {
  byId("tip").hidden = true;
}
