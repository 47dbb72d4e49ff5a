// The card of one atom, in a dialog.

function link(atom, text = `${atom}`) {
  return make("a", { href: `#atom=${atom}`, className: "atom" }, text);
}

function neighbour(atoms, { atom, cosine }) {
  const word = cosine <= -atoms.antipode ? "antipode" : cosine >= atoms.antipode ? "twin" : "";
  return make("span", { className: `neighbour ${word}` }, link(atom), ` ${signed(cosine)}`,
    word ? make("em", {}, ` ${word}`) : null);
}

function chips(atoms, tokens, side) {
  return [...tokens].map((token) => make("span", {
    className: `chip ${SIDES[side]} ${atoms.matches?.[token] ? "match" : ""}`,
  }, visible(atoms.vocabulary[token])));
}

function contextOf(atoms, { at, z, around }) {
  const length = atoms.context_length, position = at % length;
  const line = make("div", { className: "context" }, make("span", { className: "z" }, signed(z)));
  around.forEach((share, i) => {
    const place = position + i - atoms.width;
    if (place < 0 || place >= length) return;
    const isPeak = i === atoms.width;
    line.append(shaded(atoms.tokenAt(at + i - atoms.width), share / 127, {
      className: isPeak ? "active" : "", title: share ? signed((share / 127) * Math.abs(z / (around[atoms.width] / 127 || 1))) : "",
    }));
  });
  return line;
}

function cardHistogram(atoms, atom) {
  const most = atoms.most(atom), n = atoms.nBins;
  const sides = atoms.signed ? [...[...atoms.bins(atom, 1)].reverse(), ...atoms.bins(atom, 0)] : [...atoms.bins(atom, 0)];
  const zero = atoms.signed ? n : 0;
  const edges = Array.from({ length: sides.length + 1 }, (_, i) => ((i - zero) / n) * most);
  return histogram({
    edges, counts: sides, height: 110, label: `Activations of atom ${atom}, from ${short(edges[0])} to ${short(most)}`,
    ticks: [...new Set([edges[0], 0, most])].map((x) => [x, short(x)]),
    kind: (i) => (i < zero ? "negative" : "positive"),
    name: (i) => `${whole(sides[i])} tokens: ${short(edges[i])} to ${short(edges[i + 1])}`,
  });
}

/** Fill the dialog with the card of an atom. */
function showCard(place, atoms, atom) {
  const sides = SIDES.map((name, side) => {
    const found = atoms.examples(atom, side);
    if (!atoms.signed && side === 1 && !atoms.raised(atom, 1).length) return null;
    return make("section", { className: `side ${name}` },
      make("h3", {}, `${SIGNS[side]} ${name}`),
      make("p", { className: "note" }, side && !atoms.signed ? "Codes are never negative."
        : `${percent(atoms.density(atom, side))} of tokens, strongest ${short(atoms.peak(atom, side))}`),
      atoms.raised(atom, side).length
        ? make("p", {}, make("span", { className: "note" }, `${SIGNS[side]}d pushes up `), chips(atoms, atoms.raised(atom, side), side))
        : null,
      found.map((example) => contextOf(atoms, example)));
  });
  place.replaceChildren(
    make("div", { className: "head" },
      make("div", {}, make("h2", { id: "card-title" }, `Atom ${atom}`),
        make("p", { className: "note" }, `fires on ${percent(atoms.total(atom))} of ${whole(atoms.n_tokens)} tokens`),
        make("p", {}, make("span", { className: "note" }, "Nearest atoms, with cosines: "),
          ...atoms.neighbours(atom).flatMap((near) => [neighbour(atoms, near), " "]))),
      atoms.most(atom) ? cardHistogram(atoms, atom) : null),
    make("div", { className: "sides" }, sides));
}
