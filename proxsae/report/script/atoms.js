// The atoms as the table and the cards see them, and how they are found and ordered.

/** Views of the columns of the page's data (explorer_content in proxsae/report/explorer.py). */
function atomsOf(data) {
  const p = data.n_atoms;
  const nSides = 2;
  const nExamples = data.example.length / (nSides * p), nPushed = data.pushed.length / (nSides * p);
  const nNearest = data.nearest.length / p, nBins = data.histogram.length / (nSides * p);
  const width = 2 * data.width + 1;
  return {
    ...data,
    nBins,
    density: (atom, side) => data.count[2 * atom + side] / data.n_tokens,
    total: (atom) => (data.count[2 * atom] + data.count[2 * atom + 1]) / data.n_tokens,
    peak: (atom, side) => data.strongest[2 * atom + side],
    most: (atom) => Math.max(data.strongest[2 * atom], data.strongest[2 * atom + 1]),
    bins: (atom, side) => data.histogram.subarray((2 * atom + side) * nBins, (2 * atom + side + 1) * nBins),
    /** Numbers of the tokens that +d (side 0) or -d (side 1) pushes up. */
    raised: (atom, side) => data.pushed.subarray((2 * atom + side) * nPushed, (2 * atom + side + 1) * nPushed),
    neighbours: (atom) => Array.from({ length: nNearest }, (_, i) => ({
      atom: data.nearest[atom * nNearest + i], cosine: data.cosine[atom * nNearest + i],
    })),
    /** The strongest activations on a side: where in the text, how strong, and the shares around. */
    examples(atom, side) {
      const found = [];
      for (let i = 0; i < nExamples; i++) {
        const k = (2 * atom + side) * nExamples + i;
        if (data.example[k] < 0) break;
        found.push({ at: data.example[k], z: data.example_z[k], around: data.around.subarray(k * width, (k + 1) * width) });
      }
      return found;
    },
    tokenAt: (at) => data.vocabulary[data.contexts[at]],
    /** Different tokens at which a side is strongest. */
    firesOn(atom, side) {
      return [...new Set(this.examples(atom, side).map(({ at }) => data.contexts[at]))];
    },
  };
}

const KINDS = {
  all: ["all atoms", () => true],
  alive: ["atoms that fire", (atoms, i) => atoms.total(i) > 0],
  dead: ["atoms that never fire", (atoms, i) => atoms.total(i) === 0],
  both: ["both signs", (atoms, i) => atoms.density(i, 0) > 0 && atoms.density(i, 1) > 0],
  positive: ["positive only", (atoms, i) => atoms.density(i, 0) > 0 && atoms.density(i, 1) === 0],
  negative: ["negative only", (atoms, i) => atoms.density(i, 1) > 0 && atoms.density(i, 0) === 0],
  antipode: ["has an antipode", (atoms, i) => atoms.lowest[i] <= -atoms.antipode],
  twin: ["has a twin", (atoms, i) => atoms.highest[i] >= atoms.antipode],
};

// What the table can be sorted by; the largest first.
const ORDERS = {
  clearness: ["clearness", (atoms, i) => atoms.clearness[i]],
  density: ["density", (atoms, i) => atoms.total(i)],
  "density-positive": ["density of the + side", (atoms, i) => atoms.density(i, 0)],
  "density-negative": ["density of the \u2212 side", (atoms, i) => atoms.density(i, 1)],
  strongest: ["strongest", (atoms, i) => atoms.most(i)],
  "strongest-positive": ["strongest of the + side", (atoms, i) => atoms.peak(i, 0)],
  "strongest-negative": ["strongest of the \u2212 side", (atoms, i) => atoms.peak(i, 1)],
  balance: ["balance of the sides", (atoms, i) => Math.min(atoms.density(i, 0), atoms.density(i, 1)) / (atoms.total(i) || 1)],
  nearest: ["nearest atom, of either sign", (atoms, i) => Math.abs(atoms.neighbours(i)[0]?.cosine ?? 0)],
  antipode: ["most opposite atom", (atoms, i) => -atoms.lowest[i]],
  atom: ["number", (atoms, i) => -i],
};
const OF_SIGNED = ["both", "positive", "negative", "density-positive", "density-negative", "strongest-positive",
  "strongest-negative", "balance"];

/** Whether a token is meant: one that begins with the words, or in quotes is the words; case and spaces aside. */
function matcher(words) {
  const plain = words.trim().toLowerCase();
  const quoted = plain.match(/^"(.+)"$/);
  return quoted ? (token) => token.trim().toLowerCase() === quoted[1] : (token) => token.trim().toLowerCase().startsWith(plain);
}

/** The atoms that are asked for, in order; ask: {find, show, low, high, sort, up}, densities in percent. */
function select(atoms, ask) {
  const words = (ask.find ?? "").trim();
  const is = matcher(words);
  atoms.matches = words ? Uint8Array.from(atoms.vocabulary, (token) => is(token)) : null;
  const number = /^#?\d+$/.test(words) ? Number(words.replace("#", "")) : -1;
  const isMeant = (i) => i === number || [0, 1].some((side) =>
    atoms.raised(i, side).some((token) => atoms.matches[token]) ||
    atoms.firesOn(i, side).some((token) => atoms.matches[token]));
  const isShown = KINDS[ask.show][1];
  const low = Number(ask.low || 0) / 100, high = Number(ask.high || 100) / 100;
  const found = [];
  for (let i = 0; i < atoms.n_atoms; i++) {
    const density = atoms.total(i);
    if (density >= low && density <= high && isShown(atoms, i) && (!words || isMeant(i))) found.push(i);
  }
  const by = ORDERS[ask.sort][1];
  const keys = new Float64Array(atoms.n_atoms);
  for (const i of found) keys[i] = ask.up ? -by(atoms, i) : by(atoms, i);
  return found.sort((a, b) => keys[b] - keys[a] || a - b);
}
