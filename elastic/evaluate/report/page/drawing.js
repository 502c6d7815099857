// What a chart is drawn of: its frame, axes, bands and lines.

/** The edges of the plot, and its scales. All series count, so that the axes stay where a series is switched off. */
function framed(spec, width) {
  const points = spec.series.flatMap((line) => line.points);
  const xs = range(points.map((point) => point.x), spec.fromZero);
  let ys = spec.share ? [0, 1] : range(points.flatMap((point) => [point.y, point.low, point.high]), spec.fromZero);
  if (spec.diagonal) ys = range([...xs, ...ys], true);
  const edges = { left: spec.y ? 70 : 52, right: width - 14, top: 12, bottom: spec.height - 48 };
  const x = scale([xs[0], xs[1] + (xs[1] - xs[0]) * 0.03], [edges.left, edges.right]);
  const y = scale(ys, [edges.bottom - 8, edges.top + 8]);
  return { ...edges, xs, ys, x, y };
}

function axes(spec, frame) {
  const group = shape("g", { class: "axes", "aria-hidden": "true" });
  const middle = (frame.top + frame.bottom) / 2;
  for (const value of ticks(...frame.xs, (frame.right - frame.left) / 90)) {
    const x = frame.x(value);
    group.append(shape("path", { d: `M${x} ${frame.top}V${frame.bottom}` }));
    group.append(shape("text", { x, y: frame.bottom + 18, "text-anchor": "middle" }, short(value)));
  }
  for (const value of ticks(...frame.ys, spec.height / 55)) {
    const y = frame.y(value);
    group.append(shape("path", { d: `M${frame.left} ${y}H${frame.right}` }));
    const text = spec.share ? `${Math.round(100 * value)} %` : short(value);
    group.append(shape("text", { x: frame.left - 8, y: y + 4, "text-anchor": "end" }, text));
  }
  group.append(shape("text", { x: frame.right, y: frame.bottom + 40, "text-anchor": "end" }, spec.x));
  const turned = `translate(14 ${middle}) rotate(-90)`;
  if (spec.y) group.append(shape("text", { transform: turned, "text-anchor": "middle" }, spec.y));
  if (!spec.diagonal) return group;
  const end = Math.min(frame.xs[1], frame.ys[1]);
  const start = Math.max(frame.xs[0], frame.ys[0]);
  const d = `M${frame.x(start)} ${frame.y(start)}L${frame.x(end)} ${frame.y(end)}`;
  group.append(shape("path", { class: "diagonal", d }));
  const place = { x: frame.x(end), y: frame.y(end) - 5, "text-anchor": "end" };
  group.append(shape("text", place, spec.diagonal));
  return group;
}

/** The area between the low and high ends of the intervals. */
function band(line, frame) {
  const sure = line.points.filter((point) => !isMissing(point.low) && !isMissing(point.high));
  const upper = sure.map((point) => [point.x, point.high]);
  const lower = sure.map((point) => [point.x, point.low]).reverse();
  const ends = [...upper, ...lower];
  const d = ends.map(([x, y]) => `${frame.x(x)} ${frame.y(y)}`).join("L");
  const colour = colourOf(numberOf(line.label));
  return shape("path", { class: `band ${colour}`, "data-line": line.label, d: d ? `M${d}Z` : null });
}

/** Line and marks; a missing value leaves a gap. */
function curve(line, frame) {
  const number = numberOf(line.label);
  const group = shape("g", { class: colourOf(number), "data-line": line.label });
  let pen = "M";
  let d = "";
  for (const point of line.points) {
    if (isMissing(point.y)) pen = "M";
    else [d, pen] = [`${d}${pen}${frame.x(point.x)} ${frame.y(point.y)}`, "L"];
  }
  group.append(shape("path", { class: "line", d: d || null, "stroke-dasharray": dashOf(number) }));
  if (line.points.length > 40) return group;
  for (const point of line.points.filter((one) => !isMissing(one.y))) {
    const transform = `translate(${frame.x(point.x)} ${frame.y(point.y)})`;
    group.append(shape("path", { class: "mark", d: point.star ? STAR : markOf(number), transform }));
  }
  return group;
}

/** A short piece of a series' line with its mark. */
function sample(index) {
  return shape(
    "svg",
    { width: 28, height: 14, viewBox: "-14 -7 28 14", "aria-hidden": "true" },
    shape("path", { class: "line", d: "M-14 0H14", "stroke-dasharray": dashOf(index) }),
    shape("path", { class: "mark", d: markOf(index) }),
  );
}
