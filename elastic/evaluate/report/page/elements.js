// Elements, and numbers as text. Text always enters the page as text nodes, never as markup.
const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; attributes that begin with "on" are listeners, null and false leave one out. */
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An SVG element. */
function shape(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Text of a model or of a data set: controls that would change how the text around them reads are spelled out. */
function visible(text) {
  const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]/g;
  return String(text).replace(controls, (control) => {
    const code = control.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return `⟨U+${code}⟩`;
  });
}

const isMissing = (value) => value === null || value === undefined;

/** A value as its kind is written; a dash for what is not there. */
function written(value, kind) {
  if (isMissing(value)) return "–";
  if (kind === "share") return `${(100 * value).toFixed(1)} %`;
  if (kind === "tokens") return Number.isInteger(value) ? String(value) : value.toFixed(1);
  if (kind === "number") return short(value);
  return visible(value);
}

/** A number in up to three digits behind its first. */
function short(value) {
  if (typeof value !== "number") return visible(value);
  const size = Math.abs(value);
  if (value < 0) return `−${short(size)}`;
  if (Number.isInteger(value) && size < 1e6) return String(value);
  return size >= 1e6 || (size < 1e-4 && size > 0) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** The groups of a list by a key, in the order in which the keys first appear. */
function grouped(items, key) {
  const groups = new Map();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}

/** A box in which something wide scrolls, by keys too. */
function scrolling(label, content) {
  return element("div", { class: "scrolls", role: "region", "aria-label": label, tabindex: 0 }, content);
}

/** A list to choose from, with its label. */
function choice(label, options, selected, choose) {
  const select = element("select", { onchange: () => choose(select.value) });
  for (const { id, label: text } of options) {
    select.append(element("option", { value: id, selected: id === selected }, visible(text)));
  }
  return element("label", { class: "choice" }, element("span", {}, label), select);
}
