// Line charts with bands. Pointer and arrow keys move to a point, whose values a tip then shows.

/**
 * Charts that share one legend, which switches series off and on in all of them.
 * @param {object[]} specs see `chart`
 */
function charts(specs) {
  const hidden = new Set(specs.flatMap((spec) => spec.series.filter((line) => line.hidden).map((line) => line.label)));
  const drawn = specs.map((spec) => chart(spec, hidden));
  const stress = (label) => drawn.forEach((one) => one.stress(hidden.has(label) ? null : label));
  const labels = new Set(specs.flatMap((spec) => spec.series.map((line) => line.label)));
  const buttons = [...labels].map((label) => {
    const index = numberOf(label);
    const button = element("button", { type: "button", "aria-pressed": String(!hidden.has(label)), class: colourOf(index) });
    button.append(sample(index), visible(label));
    for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => stress(label));
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => stress(null));
    button.addEventListener("click", () => {
      if (!hidden.delete(label)) hidden.add(label);
      button.setAttribute("aria-pressed", String(!hidden.has(label)));
      drawn.forEach((one) => one.draw());
    });
    return button;
  });
  const legend = element("div", { class: "legend", role: "group", "aria-label": "Shown lines" }, buttons);
  return [legend, element("div", { class: drawn.length > 4 ? "charts small" : "charts" }, drawn.map((one) => one.figure))];
}

/**
 * One chart.
 * @param {{title: string, height: number, x: string, y: ?string, share: boolean, fromZero: boolean, diagonal: ?string,
 *   series: {label: string, points: {x, y, low, high, star, text: string[]}[]}[]}} spec `share`: y is a share
 *   from 0 to 1; `diagonal`: what to call the line y = x; `text`: a point's values in words
 */
function chart(spec, hidden) {
  const tip = element("div", { class: "tip", role: "status" });
  const name = `${spec.title}: ${spec.y || "value"} against ${spec.x}. Arrow keys move from point to point and between lines.`;
  const svg = shape("svg", { tabindex: 0, role: "application", "aria-label": name, height: spec.height });
  const box = element("div", { class: "plot" }, svg, tip);
  const figure = element("figure", {}, element("figcaption", {}, visible(spec.title)), box);
  // places: the shown lines' points with their places in pixels; current: [line, point] of the one that is told
  const state = { places: [], current: null };

  function draw() {
    const width = box.clientWidth;
    if (!width) return;
    const frame = framed(spec, width);
    const shown = spec.series.filter((line) => !hidden.has(line.label));
    svg.style.setProperty("--band", Math.min(0.16, 1 / shown.length)); // many bands would cover the lines
    svg.setAttribute("viewBox", `0 0 ${width} ${spec.height}`);
    const drawn = [band, curve].flatMap((part) => shown.map((line) => part(line, frame)));
    svg.replaceChildren(axes(spec, frame), ...drawn);
    state.places = shown.map((line) => placed(line, frame)).filter((line) => line.length);
    tell(null);
  }

  function stress(label) {
    svg.classList.toggle("stressed", label !== null);
    for (const part of svg.querySelectorAll("[data-line]")) {
      part.classList.toggle("faint", label !== null && part.dataset.line !== label);
    }
  }

  function tell(next) {
    state.current = next;
    stress(next && state.places[next[0]][next[1]].text[0]);
    svg.querySelector(".ring")?.remove();
    tip.replaceChildren(); // emptied, not hidden: a screen reader tells what changes in a region that stays
    if (!next) return;
    const { left, top, text } = state.places[next[0]][next[1]];
    svg.append(shape("circle", { class: "ring", cx: left, cy: top, r: 9 }));
    tip.replaceChildren(...text.map((line, index) => element(index ? "div" : "strong", {}, visible(line))));
    const room = box.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, left - tip.offsetWidth / 2))}px`;
    tip.style.top = `${top > tip.offsetHeight + 14 ? top - tip.offsetHeight - 14 : top + 14}px`;
  }

  steered(svg, state, tell);
  new ResizeObserver(draw).observe(box);
  return { figure, draw, stress };
}

/** The points of a line that have a value, with their places in pixels. */
function placed(line, frame) {
  const known = line.points.filter((point) => !isMissing(point.y));
  return known.map((point) => ({ left: frame.x(point.x), top: frame.y(point.y), text: [line.label, ...point.text] }));
}

/** Lets pointer and keys choose the point that is told. */
function steered(svg, state, tell) {
  svg.addEventListener("pointermove", (event) => {
    const { left, top } = svg.getBoundingClientRect();
    tell(nearest(state.places, event.clientX - left, event.clientY - top, 40));
  });
  svg.addEventListener("pointerleave", () => tell(null));
  svg.addEventListener("focus", () => {
    if (state.places.length && svg.matches(":focus-visible")) tell([0, 0]);
  });
  svg.addEventListener("blur", () => tell(null));
  svg.addEventListener("keydown", (event) => {
    const next = moved(event.key, state.current ?? [0, 0], state.places);
    if (next === undefined) return;
    event.preventDefault();
    tell(next);
  });
}

/** Where a key leads from a point: [line, point]; null hides the tip, undefined is another key. */
function moved(key, [line, point], places) {
  if (key === "Escape") return null;
  if (!places.length) return undefined;
  const last = places[line].length - 1;
  if (key === "ArrowRight") return [line, Math.min(point + 1, last)];
  if (key === "ArrowLeft") return [line, Math.max(point - 1, 0)];
  if (key === "Home") return [line, 0];
  if (key === "End") return [line, last];
  if (key !== "ArrowDown" && key !== "ArrowUp") return undefined;
  const other = (line + (key === "ArrowDown" ? 1 : places.length - 1)) % places.length;
  const here = places[line][point];
  const [, closest] = nearest([places[other]], here.left, here.top, Infinity);
  return [other, closest];
}

/** The point nearest to a place and at most so many pixels from it, or null. */
function nearest(places, left, top, most) {
  let best = null;
  places.forEach((line, index) => line.forEach((place, point) => {
    const distance = Math.hypot(place.left - left, place.top - top);
    if (distance <= most) [best, most] = [[index, point], distance];
  }));
  return best;
}
