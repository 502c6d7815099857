// The list of problems: one stop of the tab key; arrows, Home, End and Page keys move in it.

/**
 * @param {object[]} problems
 * @param {(problem: object) => void} choose called when another problem is chosen
 * @returns {{list: Element, show: Function}} `show(keep, marks)` filters the list and writes the verdicts anew
 */
function problemList(problems, choose) {
  const options = problems.map((problem, index) => {
    const marks = element("span", { class: "marks" });
    const words = element("span", { class: "words" }, nameOf(problem));
    const option = element("li", { role: "option", id: `problem-${index}`, "aria-selected": "false" }, marks, words);
    option.addEventListener("click", () => select(index));
    return { option, marks };
  });
  const list = element("ul", { role: "listbox", tabindex: 0, "aria-label": "Problems", class: "problems" });
  list.append(...options.map((item) => item.option));
  let kept = problems.map((_, index) => index); // which the filter lets through
  let selected = -1;

  function select(index) {
    if (selected >= 0) options[selected].option.setAttribute("aria-selected", "false");
    selected = index;
    if (index >= 0) {
      const { option } = options[index];
      option.setAttribute("aria-selected", "true");
      list.setAttribute("aria-activedescendant", option.id);
      reveal(list, option);
    } else list.removeAttribute("aria-activedescendant");
    choose(index < 0 ? null : problems[index]);
  }

  function show(keep, marks) {
    kept = [];
    problems.forEach((problem, index) => {
      const { option, marks: place } = options[index];
      const stays = keep(problem);
      option.hidden = !stays;
      if (stays) kept.push(index);
      const verdicts = marks(problem);
      place.textContent = verdicts.map(([, sign]) => sign).join(" ");
      option.setAttribute("aria-label", `${verdicts.map(([word]) => word).join(", ")}: ${nameOf(problem)}`);
    });
    select(kept.includes(selected) ? selected : (kept[0] ?? -1));
  }

  list.addEventListener("keydown", (event) => {
    const at = kept.indexOf(selected);
    const last = kept.length - 1;
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: last };
    if (!(event.key in steps) || last < 0) return;
    event.preventDefault();
    select(kept[Math.max(0, Math.min(last, steps[event.key]))]);
  });
  return { list, show };
}

/** A problem in a line: the beginning of its prompt. */
const nameOf = (problem) => visible(problem.prompt.trim().slice(0, 160) || `${problem.data}: ${problem.id}`);

/** Scrolls a list, which is positioned, so that an entry is in view; the page stays where it is. */
function reveal(list, entry) {
  const top = entry.offsetTop;
  if (top < list.scrollTop) list.scrollTop = top;
  const bottom = top + entry.offsetHeight - list.clientHeight;
  if (bottom > list.scrollTop) list.scrollTop = bottom;
}
