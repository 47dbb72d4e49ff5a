// The table of atoms, a page at a time.

const PER_PAGE = 50;

function sortButton(ask, change, name, text) {
  const isOn = ask.sort === name;
  return make("button", {
    type: "button", className: "sort", "aria-pressed": isOn, title: `Sort by ${ORDERS[name][0]}`,
    onclick: () => change({ sort: name, up: isOn && !ask.up ? "1" : "", page: "" }),
  }, text, isOn ? make("span", { "aria-hidden": "true" }, ask.up ? " \u25b4" : " \u25be") : null);
}

function heading(atoms, ask, change, title, names) {
  const shown = names.filter((name) => atoms.signed || !OF_SIGNED.includes(name));
  const isOn = shown.includes(ask.sort);
  return make("th", { scope: "col", "aria-sort": isOn ? (ask.up ? "ascending" : "descending") : "none" },
    shown.length ? shown.map((name, i) => sortButton(ask, change, name, i ? SIGNS[i - 1] : title)) : title);
}

/** One line a side; of codes that are never negative, the positive alone. */
function both(atoms, name, line, { isAlways = false, className = "" } = {}) {
  const sides = atoms.signed || isAlways ? [0, 1] : [0];
  return make("td", { "data-name": name, className }, sides.map((side) => make("div", { className: `line ${SIDES[side]}` }, line(side))));
}

function row(atoms, atom) {
  const bar = (side) => make("span", {
    className: "meter", "aria-hidden": "true",
    "--share": `${100 * Math.max(0, 1 + Math.log10(atoms.density(atom, side) || 1e-9) / Math.log10(atoms.n_tokens))}%`,
  });
  return make("tr", {},
    make("th", { scope: "row" }, link(atom)),
    both(atoms, "Density", (side) => [bar(side), percent(atoms.density(atom, side))]),
    both(atoms, "Strongest", (side) => (atoms.peak(atom, side) ? signed((side ? -1 : 1) * atoms.peak(atom, side), 1) : "\u2013")),
    both(atoms, "Fires on", (side) => chips(atoms, atoms.firesOn(atom, side), side), { className: "tokens" }),
    atoms.raised(atom, 0).length
      ? both(atoms, "Pushes up", (side) => chips(atoms, atoms.raised(atom, side), side), { isAlways: true, className: "tokens" })
      : null,
    make("td", { className: "near", "data-name": "Nearest" }, atoms.neighbours(atom).slice(0, 2).map((near) => neighbour(atoms, near))));
}

/** Fill the table with a page of the atoms that are asked for; `change` takes what is to be asked instead. */
function showTable(atoms, found, ask, change) {
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  const page = Math.min(pages, Math.max(1, Math.trunc(ask.page) || 1));
  byId("columns").replaceChildren(
    heading(atoms, ask, change, "Atom", ["atom"]),
    heading(atoms, ask, change, "Density", ["density", "density-positive", "density-negative"]),
    heading(atoms, ask, change, "Strongest", ["strongest", "strongest-positive", "strongest-negative"]),
    heading(atoms, ask, change, "Fires on", []),
    ...(atoms.pushed.length ? [heading(atoms, ask, change, "\u00b1d pushes up", [])] : []),
    heading(atoms, ask, change, "Nearest", ["nearest"]));
  byId("rows").replaceChildren(...found.slice((page - 1) * PER_PAGE, page * PER_PAGE).map((atom) => row(atoms, atom)));
  byId("count").textContent = found.length
    ? `${whole(found.length)} of ${whole(atoms.n_atoms)} atoms, by ${ORDERS[ask.sort][0]}` : "No atom is like that.";
  const turn = (text, to) => make("button", {
    type: "button", disabled: to < 1 || to > pages,
    onclick: () => { change({ page: to }); byId("count").scrollIntoView(); },
  }, text);
  byId("pages").replaceChildren(turn("\u2190 Earlier", page - 1), make("span", {}, `page ${page} of ${pages}`),
    turn("Later \u2192", page + 1));
}
