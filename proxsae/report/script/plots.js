// Histograms as SVG.

const SVG = "http://www.w3.org/2000/svg";

function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/**
 * A histogram with a logarithmic axis of counts.
 *
 * edges: one more than there are counts; isLog: the x axis; ticks: [value, text] pairs; kind: from the number of a bar
 * to its class; name: from the number of a bar to the words for it; choose: what a click on a bar does.
 */
function histogram({ edges, counts, isLog = false, ticks, kind = () => "", name, choose, label, height = 150 }) {
  const width = 340, left = 36, right = 8, top = 8, bottom = 20;
  const scale = isLog ? Math.log10 : (x) => x;
  const first = scale(edges[0]), span = scale(edges.at(-1)) - first || 1;
  const x = (value) => left + ((scale(value) - first) / span) * (width - left - right);
  const decades = Math.max(1, Math.ceil(Math.log10(Math.max(1, ...counts)) + 0.05));
  const y = (count) => height - bottom - ((Math.log10(count) + 0.3) / (decades + 0.3)) * (height - top - bottom);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": label });
  for (let power = 0; power <= decades; power += Math.ceil(decades / 4)) {
    svg.append(
      draw("line", { x1: left, x2: width - right, y1: y(10 ** power), y2: y(10 ** power), class: "grid" }),
      draw("text", { x: left - 4, y: y(10 ** power) + 3, "text-anchor": "end" }, compact(10 ** power)),
    );
  }
  counts.forEach((count, i) => {
    if (!count) return;
    const from = x(edges[i]), to = x(edges[i + 1]), gap = to - from > 3 ? 0.5 : 0;
    const bar = draw("rect", {
      x: from + gap, width: Math.max(1, to - from - 2 * gap), y: y(count), height: height - bottom - y(count),
      class: `bar ${kind(i)} ${choose ? "choice" : ""}`,
    }, draw("title", {}, name(i)));
    if (choose) bar.addEventListener("click", () => choose(i));
    svg.append(bar);
  });
  svg.append(draw("line", { x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, class: "axis" }));
  for (const [value, text] of ticks) {
    const at = x(value), anchor = at < left + 15 ? "start" : at > width - right - 15 ? "end" : "middle";
    svg.append(draw("text", { x: at, y: height - 6, "text-anchor": anchor }, text));
  }
  return svg;
}

const compact = (number) => number.toLocaleString("en-US", { notation: "compact" });
const percent = (share) => `${short(100 * share)} %`;

function decadeTicks(low, high) {
  const ticks = [];
  for (let power = Math.ceil(Math.log10(low)); 10 ** power <= high * 1.001; power++) {
    ticks.push([10 ** power, percent(10 ** power)]);
  }
  return ticks;
}

/** The plots above the table; `choose` takes a range of densities. */
function showPlots(place, plots, choose) {
  for (const plot of plots) {
    const { title, label, note, unit, edges, counts, marks } = plot;
    const isDensity = plot.is_log;
    const middle = (edges[0] + edges.at(-1)) / 2;
    const value = isDensity ? percent : (x) => short(x);
    const figure = histogram({
      edges, counts, isLog: plot.is_log, label: `${title}: ${label}. ${note}.`,
      ticks: isDensity
        ? decadeTicks(edges[0], edges.at(-1))
        : [edges[0], middle, edges.at(-1)].map((x) => (marks ? [x, short(x)] : [Math.ceil(x), whole(Math.ceil(x) + 0)])),
      kind: (i) => (!marks ? "" : edges[i + 1] <= marks[0] + 1e-9 ? "negative" : edges[i] >= marks[1] - 1e-9 ? "positive" : ""),
      name: (i) => `${whole(counts[i])} ${unit}: ${value(edges[i])} to ${value(edges[i + 1])}`,
      choose: isDensity ? (i) => choose(edges[i], edges[i + 1]) : undefined,
    });
    place.append(make("figure", {}, make("figcaption", {}, make("b", {}, title), ` ${label}`), figure,
      make("p", { className: "note" }, `${note}.${isDensity ? " A click on a bar lists its atoms." : ""}`)));
  }
}
