// A table sorted by its column heads. All rows are sorted and filtered as data; only the first are drawn.

import {announce, make, scrollBox} from "./dom.js";
import {counted, UNKNOWN} from "./numbers.js";

const COLLATOR = new Intl.Collator("en", {numeric: true, sensitivity: "base"});
const ROWS_DRAWN = 200;

// columns: [{label, value(row), show(row) | null, number, group, shape}, ...]; value is for sorting,
// show for display, shape is a class ("tight", "wide"). Adjacent columns of one `group` share a head. Rows
// that are pinned stay on top in every order. keep(row): whether a row is shown before the first filter.
// Returns {node, setRows(rows), filter(keep)}.
export function sortableTable({
  caption,
  columns,
  rows,
  onRow,
  drawn = ROWS_DRAWN,
  pinned,
  keep = () => true,
}) {
  const table = {columns, rows, onRow, drawn, pinned, keep, by: null, down: false, limit: drawn};
  table.body = make("tbody");
  table.count = make("p", {class: "count"});
  table.more = make("button", {type: "button", class: "quiet"}, "Show all rows");
  table.more.addEventListener("click", () => {
    table.limit = Infinity;
    refresh(table);
  });
  table.heads = columns.map((column) => sortHead(table, column));
  const head = make("thead", {}, groupHeads(columns), make("tr", {}, table.heads));
  const captionNode = make("caption", {class: "unseen"}, caption);
  const grid = make("table", {class: "data"}, captionNode, head, table.body);
  table.node = make("div", {class: "table-block"}, table.count, scrollBox(caption, grid), table.more);
  table.setRows = (next) => {
    table.rows = next;
    refresh(table);
  };
  table.filter = (wanted) => {
    table.keep = wanted;
    table.limit = drawn;
    refresh(table);
    announce(table.count.textContent);
  };
  refresh(table);
  return table;
}

function sortHead(table, column) {
  const sign = make("span", {class: "sort-sign", "aria-hidden": "true"});
  const name = column.group ? `${column.group}, ${column.label}` : null;
  const button = make("button", {type: "button", "aria-label": name}, column.label, sign);
  button.addEventListener("click", () => sortBy(table, column));
  const kind = column.number ? "number" : null;
  return make("th", {scope: "col", class: kind, "aria-sort": "none", "data-label": column.label}, button);
}

function groupHeads(columns) {
  if (!columns.some((column) => column.group)) return null;
  const row = make("tr", {class: "group-heads"});
  for (let start = 0; start < columns.length; ) {
    let end = start + 1;
    while (end < columns.length && columns[end].group === columns[start].group) end += 1;
    const {group} = columns[start];
    const span = {colspan: String(end - start)};
    row.append(group ? make("th", {scope: "colgroup", ...span}, group) : make("td", span));
    start = end;
  }
  return row;
}

// The first click sorts numbers in descending and text in ascending order; the next click reverses it.
function sortBy(table, column) {
  table.down = table.by === column ? !table.down : Boolean(column.number);
  table.by = column;
  columnHeads(table);
  refresh(table);
}

function columnHeads(table) {
  table.columns.forEach((column, index) => {
    const sorted = column === table.by ? (table.down ? "descending" : "ascending") : "none";
    table.heads[index].setAttribute("aria-sort", sorted);
  });
}

function refresh(table) {
  const kept = sortedRows(table);
  table.body.replaceChildren(...kept.slice(0, table.limit).map((row) => drawRow(table, row)));
  const drawn = Math.min(kept.length, table.limit);
  const first = drawn < kept.length ? `, the first ${drawn} drawn` : "";
  table.count.textContent = `${kept.length} of ${counted(table.rows.length, "row")}${first}`;
  table.more.hidden = drawn === kept.length;
}

function sortedRows({rows: all, keep, by: column, down, pinned = () => false}) {
  const rows = all.filter(keep);
  if (!column) return rows;
  const sign = down ? -1 : 1;
  const known = (value) => value !== null && value !== undefined && value !== "";
  return rows
    .map((row) => ({row, value: column.value(row), onTop: pinned(row)}))
    .sort((a, b) => {
      if (a.onTop !== b.onTop) return a.onTop ? -1 : 1;
      // Unknown values stay at the end in both directions.
      if (!known(a.value) || !known(b.value)) return Number(known(b.value)) - Number(known(a.value));
      const order = column.number ? a.value - b.value : COLLATOR.compare(String(a.value), String(b.value));
      return sign * order;
    })
    .map(({row}) => row);
}

function drawRow(table, row) {
  const cells = table.columns.map((column, index) => {
    const shown = column.show ? column.show(row) : (column.value(row) ?? UNKNOWN);
    const attributes = {class: column.number ? "number" : column.shape};
    return index ? make("td", attributes, shown) : make("th", {scope: "row", ...attributes}, shown);
  });
  const act = table.onRow && ((event) => event.target.closest("button") || table.onRow(row));
  return make("tr", {class: table.onRow ? "clickable" : null, onclick: act}, cells);
}

// A small table without sorting: heads [[label, isNumber], ...], rows of nodes or texts.
export function plainTable(caption, heads, rows) {
  const kind = (index) => (heads[index][1] ? "number" : null);
  const head = heads.map(([label], index) => make("th", {scope: "col", class: kind(index)}, label));
  const body = rows.map((cells) => {
    const line = cells.map((cell, index) => {
      if (index) return make("td", {class: kind(index)}, cell);
      return make("th", {scope: "row", class: kind(index)}, cell);
    });
    return make("tr", {}, line);
  });
  const captionNode = make("caption", {class: "unseen"}, caption);
  return make(
    "table",
    {class: "data"},
    captionNode,
    make("thead", {}, make("tr", {}, head)),
    make("tbody", {}, body),
  );
}
