// The trace viewer: two arms' answers to one problem at one budget, side by side.

const FILTERS = [
  ["all", () => true],
  ["differ", (verdicts) => !verdicts.includes(null) && new Set(verdicts).size > 1],
  ["right", (verdicts) => verdicts.every((verdict) => verdict === 1)],
  ["wrong", (verdicts) => verdicts.every((verdict) => verdict === 0)],
];

/** @param {{arms, budgets, problems}} traces as in the payload */
function traceViewer({ arms, budgets, problems }) {
  const state = { arms: [...new Set([arms[0].id, arms[arms.length - 1].id])], filter: "all", search: "" };
  state.budget = mostTelling(problems, state.arms, budgets);
  const labels = Object.fromEntries(arms.map((arm) => [arm.id, arm.label]));
  const answersOf = (problem) => state.arms.map((arm) => problem.answers[arm]?.[state.budget]);
  const verdicts = (problem) => answersOf(problem).map((answer) => answer?.correct ?? null);
  const matches = (problem) => `${problem.id} ${problem.data} ${problem.prompt}`.toLowerCase().includes(state.search);

  const detail = element("div", { class: "detail" });
  const { list, show } = problemList(problems, (problem) => {
    detail.replaceChildren(...(problem
      ? problemDetail(problem, state.arms.map((arm) => labels[arm]), answersOf(problem))
      : [element("p", {}, "No problem passes this filter.")]));
  });
  const radios = filterRadios((name) => update({ filter: name }));
  const search = element("input", { type: "search", oninput: () => update({ search: search.value.toLowerCase() }) });

  function update(changes) {
    Object.assign(state, changes);
    const passes = Object.fromEntries(FILTERS);
    radios.count(FILTERS.map(([, test]) => problems.filter((one) => matches(one) && test(verdicts(one))).length));
    show(
      (problem) => matches(problem) && passes[state.filter](verdicts(problem)),
      (problem) => answersOf(problem).map(verdictOf),
    );
  }

  const choices = [choice("budget", budgets, state.budget, (budget) => update({ budget }))];
  state.arms.forEach((arm, side) => {
    const words = state.arms.length === 1 ? "method" : SIDES[side];
    choices.push(choice(words, arms, arm, (id) => update({ arms: state.arms.with(side, id) })));
  });
  choices.push(element("label", { class: "choice" }, element("span", {}, "search"), search));
  update({});
  return [
    element("div", { class: "controls" }, choices, radios.group),
    legendOfKinds(),
    element("div", { class: "viewer" }, list, detail),
  ];
}

/** The budget at which the answers of two arms differ most often. */
function mostTelling(problems, [first, second], budgets) {
  const verdict = (problem, arm, budget) => problem.answers[arm]?.[budget]?.correct ?? null;
  const [, differ] = FILTERS[1];
  const counts = budgets.map(({ id }) => (
    problems.filter((problem) => differ([verdict(problem, first, id), verdict(problem, second ?? first, id)])).length
  ));
  return budgets[counts.indexOf(Math.max(...counts))].id;
}

function filterRadios(choose) {
  const counts = FILTERS.map(() => element("span", { class: "count" }));
  const labels = FILTERS.map(([name], index) => {
    const radio = element("input", { type: "radio", name: "filter", value: name, checked: index === 0 });
    radio.addEventListener("change", () => choose(name));
    return element("label", {}, radio, element("span", {}, `${name} `, counts[index]));
  });
  const group = element("fieldset", { class: "filter" }, element("legend", {}, "show"), labels);
  return { group, count: (numbers) => numbers.forEach((number, index) => { counts[index].textContent = number; }) };
}

function legendOfKinds() {
  const kinds = ["thinking", "forced", "solution"].map((kind) => (
    element("span", { class: `run ${kind}` }, element("span", { class: "kind" }, kind))
  ));
  return element("p", { class: "kinds" }, kinds, " forced: put there by the decoder, not by the model");
}

/** Prompt, right answer, numbers and panels of one problem. */
function problemDetail(problem, labels, answers) {
  const title = element("h3", {}, visible(`${problem.data}: ${problem.id}`));
  const prompt = element("p", { class: "prompt" }, visible(problem.prompt) || "(prompt not kept)");
  const parts = [title, prompt];
  const answer = element("strong", {}, visible(problem.answer));
  if (problem.answer) parts.push(element("p", {}, "right answer: ", answer));
  const panels = answers.map((answer, side) => answerPanel(labels[side], answer));
  parts.push(measuresTable(answers), element("div", { class: "panels" }, panels));
  return parts;
}
