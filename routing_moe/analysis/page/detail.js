// The panel at the window's lower edge: all that is known of the selected task or expert.

const SAMPLES_SHOWN = 3;
const NEAREST_SHOWN = 12;
const FEATURES_SHOWN = 10;

function detailPanel() {
  const title = make("h2", {id: "detail-heading"});
  const close = make("button", {type: "button", class: "quiet", onclick: clearSelection}, "Close");
  const blocks = make("div", {class: "blocks"});
  const head = make("div", {class: "detail-head"}, title, close);
  const panel = make(
    "aside",
    {id: "detail", "aria-labelledby": "detail-heading", hidden: true},
    head,
    blocks,
  );
  const anchor = byId("routes");
  if (anchor) anchor.after(panel);
  else byId("content").append(panel);
  onSelect((chosen) => {
    const opens = chosen && panel.hidden;
    panel.hidden = !chosen;
    if (chosen) {
      title.textContent = chosen.kind === "task" ? TASKS[chosen.task].name : expertTitle(chosen);
      blocks.replaceChildren(...(chosen.kind === "task" ? taskBlocks(chosen.task) : expertBlocks(chosen)));
      blocks.scrollTop = 0;
    }
    // The page can be scrolled so far that the panel covers nothing.
    document.documentElement.style.setProperty("--dock", `${panel.offsetHeight}px`);
    // Nor may it cover what the reader has just chosen.
    if (opens && document.activeElement !== document.body)
      document.activeElement.scrollIntoView({block: "nearest"});
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && clearSelection());
}

function block(title, ...children) {
  return make("section", {class: "block"}, make("h3", {}, title), ...children);
}

function runSuffix(run) {
  return RUNS.length > 1 ? `, ${run.name}` : "";
}

// ------------------------------------------------------------------ a task

function taskBlocks(task) {
  const nearest = ROUTED.filter((run) => run.rowOf.has(task)).map((run) => nearestBlock(run, task));
  return [aboutBlock(task), ...nearest, samplesBlock(task)].filter(Boolean);
}

function aboutBlock(task) {
  const {category, subcategory, features} = TASKS[task];
  const kind = make("p", {}, patch(kindColour(category, subcategory)), `${category}: ${subcategory}`);
  const chips = features.map((feature) => make("li", {}, feature));
  const list = chips.length
    ? make("ul", {class: "chips"}, chips)
    : make("p", {class: "lead"}, "no features known");
  return block("Kind and features", kind, list, ...taskScoreTable(task));
}

function nearestBlock(run, task) {
  const all = nearestTasks(run, task).slice(0, NEAREST_SHOWN);
  const items = all.map((near) => {
    const colour = patch(kindColour(TASKS[near.task].category, TASKS[near.task].subcategory));
    return make("li", {}, colour, taskButton(near.task), bar(near.overlap), numberText(fixed(near.overlap)));
  });
  const list = make("ol", {class: "ranked", "data-run": run.index}, items);
  return block(`Nearest by route${runSuffix(run)}`, list, lead("overlap of routes, 1 is equal"));
}

function numberText(text) {
  return make("span", {class: "number"}, text);
}

function taskScoreTable(task) {
  const rows = [];
  for (const run of RUNS) {
    for (const {part, rows: scores} of run.scores) {
      for (const [scored, sample, metric, score, n, constant] of scores) {
        if (scored !== task) continue;
        const numbers = [fixed(score), fixed(constant), String(n ?? UNKNOWN)];
        rows.push([run.name, part, String(sample ?? UNKNOWN), metric, ...numbers]);
      }
    }
  }
  if (!rows.length) return [];
  const heads = [["run"], ["part"], ["sample"], ["metric"], ["score", true], ["constant", true], ["n", true]];
  const caption = `Scores of ${TASKS[task].name}`;
  return [make("h3", {}, "Scores"), scrollBox(caption, plainTable(caption, heads, rows))];
}

function samplesBlock(task) {
  const entries = joinedSamples(task).slice(0, SAMPLES_SHOWN);
  return entries.length ? block("Predictions", entries.map(sampleNode)) : null;
}

// ------------------------------------------------------------------ an expert

function expertTitle({run, layer, expert}) {
  return `${expertName(RUNS[run], layer, expert)}${runSuffix(RUNS[run])}`;
}

function expertBlocks(chosen) {
  const run = RUNS[chosen.run];
  const column = columnOf(run, chosen.layer, chosen.expert);
  return [
    expertTasksBlock(run, column),
    loadBlock(run, column),
    expertFeaturesBlock(run, chosen.layer, chosen.expert),
  ].filter(Boolean);
}

function expertTasksBlock(run, column) {
  const even = 1 / run.experts;
  const items = tasksOfExpert(run, column).map(({task, weight}) => {
    const colour = patch(kindColour(TASKS[task].category, TASKS[task].subcategory));
    const weak = weight < even ? "weak" : null;
    return make("li", {class: weak}, colour, taskButton(task), bar(weight), numberText(fixed(weight)));
  });
  const note = `paler: below an even share, 1/${run.experts}`;
  return block("Tasks by weight", make("ol", {class: "ranked", "data-column": column}, items), lead(note));
}

// Load and, where it was tried, what switching the expert off costs: all and by category.
function loadBlock(run, column) {
  const all = run.routes.map((weights) => weights[column] / 1000);
  const first = `${firstChoices(run, column)} of ${counted(run.tasks.length, "task")}`;
  const text = `${percent(mean(all))} of all weight in its layer; first choice of ${first}.`;
  const groups = [["all", run.tasks], ...byCategory(run.tasks)];
  const rows = groups.map(([name, tasks]) => {
    const weight = mean(tasks.map((task) => weightAt(run, run.rowOf.get(task), column)));
    const cells = [name, String(tasks.length), fixed(weight)];
    if (!run.ablation) return cells;
    const tried = tasks.filter((task) => dropOf(run, column, task) !== null);
    return [...cells, signed(meanDrop(run, column, tried)), String(tried.length)];
  });
  const heads = [["category"], ["n", true], ["mean weight", true]];
  if (run.ablation) heads.push(["drop when off", true], ["n tried", true]);
  const off =
    run.ablation && lead(`drop: mean ${run.ablation.part} score before minus after switching it off`);
  return block("Load", make("p", {class: "load"}, text), plainTable("Load by category", heads, rows), off);
}

function expertFeaturesBlock(run, layer, expert) {
  const found = run.correlations?.rows.filter((row) => row[1] === layer && row[2] === expert) ?? [];
  if (!found.length) return null;
  const rows = found.slice(0, FEATURES_SHOWN).map(([feature, , , r, , q, n]) => {
    return [feature, signed(r, 2), probability(q), String(n ?? UNKNOWN)];
  });
  const heads = [["feature"], ["r", true], ["q", true], ["n", true]];
  return block("Features that go with it", plainTable("Correlated features", heads, rows));
}
