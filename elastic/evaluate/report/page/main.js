// Puts the parts together: what a reader sees first, the links and the sections.
const payload = JSON.parse(document.getElementById("payload").textContent);

// id, title, what makes it, its data, and whether there is something to show
const PARTS = [
  ["accuracy", "Accuracy against tokens used", accuracy, payload.curves],
  ["table", "Table", table, payload.table, (data) => data?.rows?.length],
  ["training", "Training curves", training, payload.training],
  ["lengths", "Lengths: asked against used", lengths, payload.lengths],
  ["claims", "Claims", claims, payload.claims],
  ["reasoning", "How the reasoning changed", reasoning, payload.reasoning],
  ["traces", "Traces", traceViewer, payload.traces, hasTraces],
];

const MISSING = "Left out, as these runs hold nothing for it";

function hasTraces(traces) {
  return traces?.problems?.length && traces.arms.length && traces.budgets.length;
}

const isPresent = ([, , , data, test]) => (test ? test(data) : data?.length);

/** What was run, in a fold. */
function runFacts(run) {
  const facts = Object.entries(run.facts ?? {}).flatMap(([name, value]) => {
    const text = typeof value === "object" ? JSON.stringify(value) : value;
    return [element("dt", {}, visible(name)), element("dd", {}, visible(text))];
  });
  const title = element("summary", {}, element("strong", {}, visible(run.name)), run.kind === run.name ? null : ` ${run.kind}`);
  return element("details", {}, title, element("dl", {}, facts));
}

function top() {
  const made = Object.entries(payload.made ?? {}).map(([name, value]) => `${name} ${value}`).join(" · ");
  const missing = PARTS.filter((part) => !isPresent(part)).map(([, title]) => title.toLowerCase());
  return [
    element("h1", {}, visible(payload.title)),
    element("p", { class: "made" }, visible(made)),
    ...(payload.notes ?? []).map((note) => element("p", {}, visible(note))),
    ...(payload.runs ?? []).map(runFacts),
    missing.length ? element("p", { class: "missing" }, `${MISSING}: ${missing.join("; ")}.`) : "",
  ];
}

function section([id, title, make, data]) {
  const heading = element("h2", { id: `${id}-title` }, title);
  return element("section", { id, "aria-labelledby": heading.id }, heading, make(data));
}

document.getElementById("top").append(...top());
const shown = PARTS.filter(isPresent);
document.querySelector("nav").append(...shown.map(([id, title]) => element("a", { href: `#${id}` }, title)));
document.getElementById("report").append(...shown.map(section));
