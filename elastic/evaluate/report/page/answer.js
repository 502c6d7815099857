// One answer: its verdict, its text by kind, and its numbers beside those of another answer.

const VERDICTS = { 1: ["right", "✓"], 0: ["wrong", "✗"] };
const verdictOf = (answer) => (answer && VERDICTS[answer.correct]) || ["not graded", "–"];

// What the reader compares: how much was thought, how, and where the result was computed.
const MEASURES = [
  ["thinking tokens", "tokens", (answer) => answer.thinking_tokens],
  ["solution tokens", "tokens", (answer) => answer.solution_tokens],
  ["re-checks", "number", (answer) => answer.measures?.rechecks],
  ["repetition", "share", (answer) => answer.measures?.repetition],
  ["computed in the solution", "share", (answer) => answer.measures?.solution_share],
];

/** An answer under the label of its arm; `answer` is undefined where none was kept. */
function answerPanel(label, answer) {
  const head = element("h4", {}, visible(label));
  if (!answer) return element("article", { class: "answer" }, head, element("p", {}, "No answer kept at this budget."));
  const [word, sign] = verdictOf(answer);
  head.append(element("span", { class: `verdict ${word.replace(" ", "-")}` }, `${sign} ${word}`));
  const facts = [`${answer.tokens} tokens`];
  if (answer.finish_reason) facts.push(`ended by ${visible(answer.finish_reason)}`);
  if (answer.cut) facts.push("thought cut at the budget");
  return element(
    "article",
    { class: "answer", "aria-label": `${label}: ${word}` },
    head,
    element("p", { class: "facts" }, facts.join(", ")),
    runs(answer),
  );
}

/** The runs of an answer in order, each with its kind in words, and a mark where the thought was cut. */
function runs(answer) {
  const box = element("div", { class: "runs" });
  const lastThought = answer.segments.map(([kind]) => kind).lastIndexOf("thinking");
  if (answer.cut && lastThought < 0) box.append(cutMark());
  answer.segments.forEach(([kind, text], index) => {
    const body = visible(text.trim()) || "(nothing but white space)";
    box.append(element("div", { class: `run ${kind}` }, element("span", { class: "kind" }, kind), element("p", {}, body)));
    if (answer.cut && index === lastThought) box.append(cutMark());
  });
  if (!answer.segments.length) box.append(element("p", {}, "(no text)"));
  return box;
}

const cutMark = () => element("div", { class: "cut", role: "note" }, "✂ thought cut here");

/** The measures of one answer, or of two and what changed from the first to the second. */
function measuresTable(labels, answers) {
  const lines = MEASURES.map(([name, kind, read]) => {
    const values = answers.map((answer) => (answer ? read(answer) : null));
    const cells = values.map((value) => element("td", { class: kind }, written(value, kind)));
    if (values.length === 2) cells.push(element("td", { class: kind }, change(values, kind)));
    return element("tr", {}, element("th", { scope: "row" }, name), cells);
  });
  const heads = ["", ...labels, ...(labels.length === 2 ? ["change"] : [])];
  const head = element("tr", {}, heads.map((text) => element("th", { scope: "col" }, visible(text))));
  const caption = element("caption", {}, "The two answers in numbers");
  return element("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": "The answers in numbers" },
    element("table", { class: "measures" }, labels.length === 2 ? caption : null, element("thead", {}, head),
      element("tbody", {}, lines)));
}

function change([before, after], kind) {
  if (isMissing(before) || isMissing(after)) return "–";
  const sign = after > before ? "+" : after < before ? "−" : "±";
  const size = Math.abs(after - before);
  return sign + (kind === "share" ? `${(100 * size).toFixed(1)} points` : written(size, kind));
}
