// The parts of the report, each made from its piece of the payload.
const unique = (values) => [...new Set(values)];
const between = (low, high, kind) => `${written(low, kind)} to ${written(high, kind)}`;

function accuracy(curves) {
  const name = nameOfLine(curves);
  const specs = [...grouped(curves, (curve) => curve.data)].map(([data, lines]) => ({
    title: data, height: 350, x: "tokens used per answer (mean)", y: "accuracy", share: true, fromZero: true,
    series: lines.map((line) => ({ label: name(line), hidden: line.hidden, points: line.points.map(accuracyPoint) })),
  }));
  return [
    element("p", {}, "Bands are 95 % intervals; a star stands for no budget. The buttons switch lines off and on."),
    ...charts(specs),
  ];
}

const accuracyPoint = (point) => ({
  x: point.tokens, y: point.accuracy, low: point.low, high: point.high, star: point.budget === "none",
  text: [
    `budget ${point.budget}`,
    `${written(point.accuracy, "share")} right (${between(point.low, point.high, "share")})`,
    `${written(point.tokens, "tokens")} tokens`,
  ],
});

/** The label of a line; with its run where two runs would have the same one in a chart. */
function nameOfLine(lines) {
  const runsOf = grouped(lines, (line) => line.label);
  const several = (label) => unique(runsOf.get(label).map((line) => line.run)).length > 1;
  return (line) => (several(line.label) ? `${line.label} (${line.run})` : line.label);
}

function training(metrics) {
  const specs = [...grouped(metrics, (metric) => metric.metric).values()].map((lines) => ({
    title: lines[0].title, height: 240, x: "step", y: lines[0].unit, fromZero: false,
    series: lines.map((line) => ({ label: line.run, hidden: line.hidden, points: line.steps.map((step, index) => ({
      x: step, y: line.values[index], text: [`step ${step}`, `${short(line.values[index])} ${line.unit ?? ""}`],
    })) })),
  }));
  return charts(specs);
}

function lengths(lines) {
  const name = nameOfLine(lines);
  const sets = [...grouped(lines, (line) => line.data)];
  return charts(sets.map(([data, found]) => ({
    title: sets.length > 1 ? `Tokens per answer, ${data}` : "Tokens per answer",
    height: 350, x: "tokens asked for or allowed", y: "tokens used (mean)", fromZero: true, diagonal: "as asked",
    series: found.map((line) => ({ label: name(line), hidden: line.hidden, points: line.points.map(lengthPoint) })),
  })));
}

const lengthPoint = (point) => ({
  x: point.asked, y: point.used, low: point.low, high: point.high,
  text: [
    `${written(point.asked, "tokens")} tokens asked for or allowed`,
    `used ${written(point.used, "tokens")} (${between(point.low, point.high, "tokens")})`,
    `${point.count} answers`,
  ],
});

function claims(list) {
  const items = list.map(({ claim, outcome, low, high, note }) => {
    const interval = isMissing(low) ? null : ` 95 %: ${between(low, high, "number")}`;
    const words = element("div", {}, visible(claim), element("span", { class: "interval" }, interval));
    if (note) words.append(element("div", { class: "note" }, visible(note)));
    return element("li", {}, element("span", { class: `outcome ${outcome}` }, visible(outcome)), words);
  });
  return [element("ul", { class: "claims" }, items)];
}

function reasoning(rows) {
  const columns = [
    ["method", "text", "arm"], ["budget", "text", "budget"], ["answers", "number", "count"],
    ["thinking tokens", "tokens", "thinking_tokens"], ["solution tokens", "tokens", "solution_tokens"],
    ["re-checks", "number", "rechecks"], ["repetition", "share", "repetition"],
    ["tokens in the solution", "share", "solution_share"],
    ["results in the solution", "share", "steps_in_solution"],
  ].map(([title, kind, key]) => ({ title, kind, key }));
  if (unique(rows.map((row) => row.data)).length > 1) columns.unshift({ title: "data", kind: "text", key: "data" });
  const cells = rows.map((row) => columns.map(({ key }) => row[key]));
  return sortableTable("Means over the answers, by method and budget", columns, cells);
}

function table({ columns, rows }) {
  return sortableTable("Every method at every budget; a heading sorts", columns, rows);
}
