// Contrast as WCAG 2 defines it: of every shown piece of text, and of the lines of charts, to the ground behind.
(() => {
  const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
  const linear = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const contrast = (node, property) => {
    const both = [parse(getComputedStyle(node)[property]), ground(node)].map(luminance);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  };
  const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  const texts = [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() && hasText(node));
  const property = (node) => (node instanceof SVGElement ? "fill" : "color");
  return {
    texts: texts.map((node) => [contrast(node, property(node)), node.tagName, node.textContent.slice(0, 40)]),
    lines: [...document.querySelectorAll(".line")].map((node) => contrast(node, "stroke")),
    marks: [...document.querySelectorAll(".mark")].map((node) => contrast(node, "fill")),
  };
})()
