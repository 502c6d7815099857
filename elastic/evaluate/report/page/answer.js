// One answer: its verdict, its text by kind, and its numbers beside those of another answer.

const SIDES = ["left", "right"];
const VERDICTS = { 1: ["right", "✓"], 0: ["wrong", "✗"] };
const verdictOf = (answer) => (answer && VERDICTS[answer.correct]) || ["not graded", "–"];

// What the reader compares: how much was thought, how, and where the result was computed.
const MEASURES = [
  ["thinking tokens", "tokens", (answer) => answer.thinking_tokens],
  ["solution tokens", "tokens", (answer) => answer.solution_tokens],
  ["re-checks", "number", (answer) => answer.measures?.rechecks],
  ["repetition", "share", (answer) => answer.measures?.repetition],
  ["tokens in the solution", "share", (answer) => answer.measures?.solution_share],
  ["results in the solution", "share", (answer) => answer.measures?.steps_in_solution],
];

/** An answer under the label of its arm; `answer` is undefined where none was kept. */
function answerPanel(label, answer) {
  const head = element("h4", {}, visible(label));
  if (!answer) {
    return element("article", { class: "answer" }, head, element("p", {}, "No answer kept at this budget."));
  }
  const [word, sign] = verdictOf(answer);
  head.append(element("span", { class: `verdict ${word.replace(" ", "-")}` }, `${sign} ${word}`));
  const facts = [`${answer.tokens} tokens`];
  if (answer.finish_reason) facts.push(`ended by ${visible(answer.finish_reason)}`);
  if (answer.cut) facts.push("thought cut");
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
    const label = element("span", { class: "kind" }, kind);
    box.append(element("div", { class: `run ${kind}` }, label, element("p", {}, body)));
    if (answer.cut && index === lastThought) box.append(cutMark());
  });
  if (!answer.segments.length) box.append(element("p", {}, "(no text)"));
  return box;
}

const cutMark = () => element("div", { class: "cut", role: "note" }, "✂ thought cut here");

/** The measures of one answer, or of two and what changed from the left one to the right one; a line each. */
function measuresTable(answers) {
  const values = MEASURES.map(([, , read]) => answers.map((answer) => (answer ? read(answer) : null)));
  const lines = answers.map((_, side) => measuresLine(
    answers.length === 1 ? "answer" : SIDES[side],
    MEASURES.map(([, kind], index) => written(values[index][side], kind)),
  ));
  if (answers.length === 2) {
    lines.push(measuresLine("change", MEASURES.map(([, kind], index) => change(values[index], kind))));
  }
  const heads = MEASURES.map(([name]) => element("th", { scope: "col" }, name));
  const head = element("thead", {}, element("tr", {}, element("td"), heads));
  const table = element("table", { class: "measures" }, head, element("tbody", {}, lines));
  return scrolling("The answers in numbers", table);
}

function measuresLine(name, cells) {
  return element("tr", {}, element("th", { scope: "row" }, name), cells.map((text) => element("td", {}, text)));
}

function change([before, after], kind) {
  if (isMissing(before) || isMissing(after)) return "–";
  const sign = after > before ? "+" : after < before ? "−" : "±";
  const size = Math.abs(after - before);
  return sign + (kind === "share" ? `${(100 * size).toFixed(1)} points` : written(size, kind));
}
