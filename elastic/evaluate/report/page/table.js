// Tables that sort by a column. A wide one scrolls in its own box, not the page.

/**
 * @param {string} caption
 * @param {{title: string, kind: string}[]} columns kinds as in `written`
 * @param {Array[]} rows raw values
 */
function sortableTable(caption, columns, rows) {
  const body = element("tbody");
  const isText = (column) => columns[column].kind === "text";
  const lines = rows.map((values) => ({ values, line: tableLine(values, columns) }));
  const heads = columns.map((column, index) => {
    const button = element("button", { type: "button", onclick: () => sort(index) }, visible(column.title));
    return element("th", { scope: "col", class: column.kind, "aria-sort": "none" }, button);
  });

  function sort(column) {
    const before = heads[column].getAttribute("aria-sort");
    // Numbers begin with the greatest, text with the first letter.
    const descends = before === "none" ? !isText(column) : before === "ascending";
    heads.forEach((head) => head.setAttribute("aria-sort", "none"));
    heads[column].setAttribute("aria-sort", descends ? "descending" : "ascending");
    const sorted = [...lines].sort((a, b) => compared(a.values[column], b.values[column], descends));
    body.replaceChildren(...sorted.map((item) => item.line));
  }

  body.append(...lines.map((item) => item.line));
  const table = element("table", { "aria-label": caption }, element("thead", {}, element("tr", {}, heads)), body);
  return [element("p", { class: "caption" }, caption), scrolling(caption, table)]; // the words do not scroll
}

function tableLine(values, columns) {
  const cells = values.map((value, index) => {
    const kind = columns[index].kind;
    return element("td", { class: kind }, written(value, kind));
  });
  return element("tr", {}, cells);
}

/** Order of two cells; what is missing comes last either way. */
function compared(a, b, descends) {
  if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
  const order = typeof a === "number" && typeof b === "number"
    ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true });
  return descends ? -order : order;
}
