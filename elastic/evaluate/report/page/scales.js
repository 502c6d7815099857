// Ranges, ticks and the marks of the series of a chart.

/** About `count` round numbers from low to high. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/** Least and greatest of the values, apart even where all are one. */
function range(values, fromZero) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (isMissing(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  if (fromZero) low = Math.min(low, 0);
  if (low === high) return [low - 0.5, high + 0.5];
  return [low, high];
}

/** A linear map of [from, to] onto [start, end]. */
const scale = ([from, to], [start, end]) => (value) => start + ((value - from) / (to - from)) * (end - start);

// Every series has a colour (in the style sheet) and a mark of its own; after six, dashes tell them apart.
const COLOURS = 6;
const MARKS = [
  "M-4-4H4V4H-4Z", // square
  "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z", // circle
  "M0-5.5L5.5 0L0 5.5L-5.5 0Z", // diamond
  "M0-5L5 4H-5Z", // triangle
  "M0 5L5-4H-5Z", // triangle on its tip
  "M-1.8-5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8Z", // plus
];
const STAR = "M0-9L2.3-2.9L8.6-2.8L3.6 1.1L5.3 7.3L0 3.7L-5.3 7.3L-3.6 1.1L-8.6-2.8L-2.3-2.9Z";

/** The number of a label: the same line looks the same in every chart of the page. */
const numbers = new Map();
function numberOf(label) {
  if (!numbers.has(label)) numbers.set(label, numbers.size);
  return numbers.get(label);
}

const colourOf = (index) => `series-${index % COLOURS}`;
const dashOf = (index) => ["", "6 4", "2 3"][Math.floor(index / COLOURS) % 3];
const markOf = (index) => MARKS[index % COLOURS];
