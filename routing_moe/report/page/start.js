// Draws the page: its head, then every section that has data, in the order of the navigation.

import {ablationSection} from "./ablation.js";
import {followScheme, themeButton} from "./colour.js";
import {curvesSection} from "./curves.js";
import {detailPanel} from "./detail.js";
import {byId, make} from "./dom.js";
import {correlationsSection, recoverySection, stabilitySection} from "./findings.js";
import {DATA, RUNS} from "./model.js";
import {predictionsSection} from "./predictions.js";
import {followPrint} from "./print.js";
import {routesSection} from "./routes.js";
import {scoresSection} from "./scores.js";
import {settingsSection} from "./settings.js";

function pageHead() {
  const names = RUNS.map((run) => {
    const step = run.step === null || run.step === undefined ? null : make("span", {}, `step ${run.step}`);
    return make("li", {}, make("strong", {}, run.name), step);
  });
  const notes = DATA.notes.map((note) => make("p", {class: "note"}, note));
  const top = make("div", {class: "title-row"}, make("h1", {}, DATA.title), themeButton());
  byId("top").append(top, make("ul", {class: "runs", "aria-label": "Runs"}, names), ...notes);
}

function drawReport() {
  pageHead();
  followScheme();
  followPrint();
  routesSection();
  detailPanel();
  scoresSection();
  curvesSection();
  correlationsSection();
  recoverySection();
  stabilitySection();
  ablationSection();
  predictionsSection();
  settingsSection();
  requestAnimationFrame(() => performance.mark("drawn"));
}

// browser_check.js shows the message if the page cannot be drawn.
if (byId("unsupported").hidden) drawReport();
