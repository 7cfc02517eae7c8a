// Settings, versions and command lines of the runs; differences between runs come first.

import {checkBox, labelled, make, textFilter} from "./dom.js";
import {RUNS} from "./model.js";
import {UNKNOWN} from "./numbers.js";
import {section} from "./section.js";
import {sortableTable} from "./table.js";

export function settingsSection() {
  const rows = settingRows();
  const made = RUNS.filter((run) => run.command || run.git || run.folder);
  if (!rows.length && !made.length) return;
  const node = section("settings", "Settings");
  if (rows.length) node.append(...settingTable(rows));
  if (made.length) node.append(make("h3", {}, "Origin of the runs"), ...made.map(origin));
}

function settingRows() {
  const rows = [];
  for (const [field, prefix] of [
    ["settings", ""],
    ["versions", "version of "],
  ]) {
    const names = [...new Set(RUNS.flatMap((run) => Object.keys(run[field] ?? {})))];
    for (const name of names) {
      const values = RUNS.map((run) =>
        Object.hasOwn(run[field] ?? {}, name) ? plainValue(run[field][name]) : UNKNOWN,
      );
      rows.push({name: prefix + name, values, differs: new Set(values).size > 1});
    }
  }
  return rows.sort((a, b) => Number(b.differs) - Number(a.differs));
}

function plainValue(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function settingTable(rows) {
  const columns = [{label: "setting", value: (row) => row.name, show: (row) => make("code", {}, row.name)}];
  const several = RUNS.length > 1;
  if (several)
    columns.push({label: "differs", value: (row) => (row.differs ? "≠ differs" : ""), show: differsMark});
  RUNS.forEach((run, index) => {
    columns.push({
      label: run.name,
      value: (row) => row.values[index],
      show: (row) => make("code", {}, row.values[index]),
    });
  });
  const table = sortableTable({caption: "Settings of the runs", columns, rows});
  table.node.id = "setting-table";
  const only = {text: "", differs: false};
  const apply = (name) => (value) => {
    only[name] = value;
    table.filter((row) => row.name.toLowerCase().includes(only.text) && (row.differs || !only.differs));
  };
  const tools = [labelled("filter", textFilter(apply("text"), "setting"))];
  if (several) tools.push(checkBox("show only differences", apply("differs")));
  return [make("div", {class: "tools"}, tools), table.node];
}

function differsMark(row) {
  return row.differs ? make("strong", {class: "differs"}, "≠ differs") : "";
}

function origin(run) {
  const entries = [
    ["folder", run.folder],
    ["step", run.step],
    ["git", run.git],
    ["command", run.command],
  ];
  const known = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  const pairs = known.map(([term, value]) => [
    make("dt", {}, term),
    make("dd", {}, make("code", {}, String(value))),
  ]);
  return make("div", {class: "origin"}, make("h4", {}, run.name), make("dl", {class: "sample"}, pairs));
}
