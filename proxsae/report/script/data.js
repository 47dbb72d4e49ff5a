// What the other scripts share: reading the data, making elements, writing numbers and tokens.

const TYPES = { float32: Float32Array, int32: Int32Array, uint32: Uint32Array, int8: Int8Array };

/** The tree of a packed document (proxsae/report/packing.py), with typed arrays where arrays stood. */
async function unpack({ tree, blob }) {
  const text = atob(blob);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const filled = (node) => {
    if (Array.isArray(node)) return node.map(filled);
    if (node === null || typeof node !== "object") return node;
    if (node.array) return new TYPES[node.array](buffer, node.start, node.length);
    return Object.fromEntries(Object.entries(node).map(([name, value]) => [name, filled(value)]));
  };
  const { vocabulary, ...rest } = tree; // many texts and no arrays
  return { vocabulary, ...filled(rest) };
}

const byId = (id) => document.getElementById(id);

/** An element with properties, attributes (names with a hyphen, and role) and children; texts are never read as HTML. */
function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("--")) element.style.setProperty(key, value);
    else if (key.includes("-") || key === "role" || key === "scope") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

const SIDES = ["positive", "negative"]; // the order of every pair of sides
const SIGNS = ["+", "\u2212"];

const whole = (number) => number.toLocaleString("en-US");

const plural = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;

function signed(value, digits = 2) {
  return (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits);
}

/** Three significant digits, without an exponent where people write none. */
function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

/** A token with its spaces visible as the width of its box, and line breaks as a sign. */
const visible = (token) => token.replaceAll("\n", "\u23ce").replaceAll("\t", "\u21e5");

/** A token on a ground of the colour of its sign, as strong as |share| of the strongest. */
function shaded(token, share, properties = {}) {
  const side = share > 0 ? "positive" : share < 0 ? "negative" : "";
  return make("span", {
    ...properties,
    className: `token ${side} ${properties.className ?? ""}`,
    "--share": share ? `${Math.round(12 + 68 * Math.min(1, Math.abs(share)))}%` : "0%",
  }, visible(token));
}
