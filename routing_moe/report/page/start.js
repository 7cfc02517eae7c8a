// The page's head, then every section that has data, in the order of the navigation.

function pageHead() {
  const names = RUNS.map((run) => {
    const step = run.step === null || run.step === undefined ? null : make("span", {}, `step ${run.step}`);
    return make("li", {}, make("strong", {}, run.name), step);
  });
  const notes = DATA.notes.map((note) => make("p", {class: "note"}, note));
  const top = make("div", {class: "title-row"}, make("h1", {}, DATA.title), themeButton());
  byId("top").append(top, make("ul", {class: "runs", "aria-label": "Runs"}, names), ...notes);
}

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
