// What switching an expert off costs: by category of task, expert by expert, and for the experts of a
// feature.

const WORST_SHOWN = 3;

function ablationSection() {
  const runs = RUNS.filter((run) => run.ablation);
  if (!runs.length) return;
  const view = make("div", {class: "ablation"});
  const showRun = (run) => view.replaceChildren(...ablationParts(run));
  const tools = make("div", {class: "tools"}, runChoice(runs, showRun));
  section("ablation", "Ablation", runs.length > 1 ? tools : null, view);
  showRun(runs[0]);
  painters.push(() => paintDrops(view));
}

function ablationParts(run) {
  const {note, part, features} = run.ablation;
  const unit = lead(
    `Drop: ${part} score before minus after switching the expert off; above 0 the expert was of use.`,
  );
  const parts = [lead(note), unit, make("h3", {}, "Mean drop by category"), dropMap(run)];
  parts.push(make("h3", {}, "Experts"), expertDrops(run));
  if (features.length)
    parts.push(make("h3", {}, "Experts of a feature"), lead(FEATURES_LEAD), featureDrops(run));
  return parts;
}

const FEATURES_LEAD =
  "The experts that go with a feature, all switched off at once, against as many experts drawn at random.";

// The mean over those of the tasks that were tried, null if none was.
function meanDrop(run, column, tasks) {
  return mean(tasks.map((task) => dropOf(run, column, task)));
}

function dropOf(run, column, task) {
  const {ablation} = run;
  ablation.placeOf ??= new Map(ablation.tasks.map((entry, place) => [entry, place]));
  const place = ablation.placeOf.get(task);
  return place === undefined ? null : (ablation.drops[column]?.[place] ?? null);
}

// ------------------------------------------------------------------ categories by experts

function dropMap(run) {
  const groups = [["all tasks", run.ablation.tasks], ...byCategory(run.ablation.tasks)];
  const columns = Array.from({length: run.columns}, (_, column) => column);
  const values = groups.map(([, tasks]) => columns.map((column) => meanDrop(run, column, tasks)));
  const most = largest(values.flat());
  const body = groups.map(([name, tasks], row) => {
    const cells = values[row].map((value, column) => dropCell(run, value, most, column));
    return make(
      "tr",
      {},
      make("th", {scope: "row"}, name),
      make("td", {class: "number"}, String(tasks.length)),
      cells,
    );
  });
  const caption = `Mean drop by category and expert, ${run.name}`;
  const head = make("thead", {}, dropLayers(run), dropExperts(run, columns));
  const table = make("table", {class: "data drops"}, make("caption", {class: "unseen"}, caption), head);
  table.append(make("tbody", {}, body));
  const block_ = scrollBox(caption, table);
  paintDrops(block_);
  return make("div", {}, block_, dropLegend(most));
}

function dropLayers(run) {
  const heads = run.layers.map((layer) =>
    make("th", {scope: "colgroup", colspan: String(run.experts)}, layer),
  );
  return make("tr", {class: "group-heads"}, make("td", {colspan: "2"}), heads);
}

function dropExperts(run, columns) {
  const heads = columns.map((column) => {
    const {layer, expert} = expertOf(run, column);
    const button = expertButton(run, layer, expert, String(expert));
    button.setAttribute("aria-label", expertName(run, layer, expert));
    const kind = expert ? "number" : "number first";
    return make("th", {scope: "col", class: kind, "data-label": String(expert)}, button);
  });
  return make(
    "tr",
    {},
    make("th", {scope: "col"}, "category"),
    make("th", {scope: "col", class: "number"}, "n"),
    heads,
  );
}

// Written without the zero before the point, to be narrow: .031, −.004.
function dropCell(run, value, most, column) {
  const text = fixed(value).replace(/^(−?)0\./, "$1.");
  const first = column % run.experts ? "" : " first";
  const {layer, expert} = expertOf(run, column);
  const cell = make("td", {class: `drop number${first}`, title: expertName(run, layer, expert)}, text);
  cell.signedValue = value;
  cell.most = most;
  return cell;
}

function paintDrops(within) {
  for (const cell of within.querySelectorAll(".drop, .drop-ramp i")) {
    if (cell.signedValue !== null) setStyle(cell, signedColours(cell.signedValue, cell.most));
  }
}

function dropLegend(most) {
  const steps = [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1].map((share) => {
    const piece = make("i");
    [piece.signedValue, piece.most] = [share, 1];
    return piece;
  });
  const ramp = make("span", {class: "drop-ramp", "aria-hidden": "true"}, steps);
  const node = make("p", {class: "weight-legend"}, `gain ${fixed(-most)}`, ramp, `${fixed(most)} drop`);
  paintDrops(node);
  return node;
}

// ------------------------------------------------------------------ tables

function expertDrops(run) {
  const rows = Array.from({length: run.columns}, (_, column) => {
    const drops = run.ablation.tasks.map((task) => ({task, drop: dropOf(run, column, task)}));
    const known = drops.filter(({drop}) => drop !== null).sort((a, b) => b.drop - a.drop);
    return {
      ...expertOf(run, column),
      column,
      drop: mean(known.map(({drop}) => drop)),
      n: known.length,
      known,
    };
  });
  const most = largest(rows.map((row) => row.drop));
  const worst = ({known}) => known.slice(0, WORST_SHOWN).filter(({drop}) => drop > 0);
  const hits = (row) =>
    make(
      "ul",
      {class: "hits"},
      worst(row).map(({task, drop}) => {
        return make("li", {}, taskButton(task), " ", numberText(signed(drop)));
      }),
    );
  const load = (row) => mean(run.routes.map((weights) => weights[row.column] / 1000));
  const table = sortableTable({
    caption: "Experts by mean drop",
    columns: [
      {
        label: "expert",
        value: (row) => row.column,
        show: (row) => expertButton(run, row.layer, row.expert),
        shape: "tight",
      },
      {
        label: "mean drop",
        value: (row) => row.drop,
        show: (row) => [signed(row.drop), signedBar(row.drop, most)],
        number: true,
      },
      {
        label: "load",
        value: load,
        show: (row) => fixed(load(row)),
        number: true,
        note: "mean weight of the expert",
      },
      {label: "n", value: (row) => row.n, number: true},
      {label: "hardest hit tasks", value: (row) => worst(row)[0]?.drop ?? null, show: hits, shape: "wide"},
    ],
    rows: rows.sort((a, b) => (b.drop ?? -Infinity) - (a.drop ?? -Infinity)),
    drawn: 12,
  });
  table.node.id = "expert-drops";
  return table.node;
}

function featureDrops(run) {
  const rows = run.ablation.features.flatMap(({feature, experts, groups}) => {
    return groups.map((group) => ({feature, experts, group}));
  });
  const at =
    (index) =>
    ({group}) =>
      group[index];
  const number = (label, index, show) => ({
    label,
    value: at(index),
    show: (row) => show(at(index)(row)),
    number: true,
  });
  const experts = (row) =>
    make(
      "ul",
      {class: "hits"},
      row.experts.map(([layer, expert]) => {
        return make("li", {}, expertButton(run, layer, expert));
      }),
    );
  const random = ({group}) => `${signed(group[3])}${group[4] === null ? "" : ` ± ${fixed(group[4])}`}`;
  return sortableTable({
    caption: "Drop when a feature's experts are switched off",
    columns: [
      {label: "feature", value: (row) => row.feature},
      {label: "experts", value: (row) => row.experts.length, show: experts, shape: "wide"},
      {label: "tasks", value: at(0)},
      number("n", 1, String),
      number("drop, its experts", 2, signed),
      {
        label: "drop, random experts",
        value: at(3),
        show: random,
        number: true,
        note: "mean ± standard deviation",
      },
      number("draws", 5, String),
      number("p", 6, probability),
    ],
    rows,
  }).node;
}
