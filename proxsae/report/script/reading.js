// Texts with the codes of each token, on both sides.

/** The codes of a token, the strongest first. */
function codesOf(reading, token) {
  const found = [];
  for (let k = reading.starts[token]; k < reading.starts[token + 1]; k++) {
    found.push({ atom: reading.atoms[k], z: reading.values[k] });
  }
  return found.sort((a, b) => Math.abs(b.z) - Math.abs(a.z));
}

/** The code of an atom at each token of a text. */
function trackOf(reading, atom) {
  return reading.tokens.map((_, token) => codesOf(reading, token).find((code) => code.atom === atom)?.z ?? 0);
}

/** Show a text; a click on a token lists its codes, a click on a code shades the text by its atom. */
function showReading(place, atoms, reading) {
  const tokens = make("div", { className: "text", role: "group", "aria-label": "Tokens; arrow keys move between them" });
  const legend = make("p", { className: "note", "aria-live": "polite" });
  const list = make("div", {});
  const is = reading.is_read.map((isRead, i) => (isRead ? i : -1)).filter((i) => i >= 0);
  let chosen, shade;

  function show() {
    const track = trackOf(reading, shade);
    const most = Math.max(...track.map(Math.abs)) || 1;
    const hadFocus = tokens.contains(document.activeElement);
    tokens.replaceChildren(...reading.tokens.map((token, i) => {
      const part = shaded(token, track[i] / most, {
        className: `${i === chosen ? "chosen" : ""} ${reading.is_read[i] ? "" : "unread"}`,
        title: reading.is_read[i] ? (track[i] ? signed(track[i]) : "0") : "special or excluded token, or massive activation: no codes",
        tabIndex: i === chosen ? 0 : -1,
      });
      if (reading.is_read[i]) {
        part.setAttribute("role", "button");
        part.setAttribute("aria-pressed", i === chosen);
        part.onclick = () => choose(i);
      }
      return part;
    }));
    if (hadFocus) tokens.children[chosen].focus();
    legend.replaceChildren("Shaded by ", link(shade, `atom ${shade}`),
      `: ${SIGNS.map((sign, side) => {
        const values = track.filter((z) => (side ? z < 0 : z > 0));
        return `${plural(values.length, "token")} ${sign}${values.length ? `, up to ${signed(side ? Math.min(...values) : Math.max(...values), 1)}` : ""}`;
      }).slice(0, atoms.signed ? 2 : 1).join("; ")}.`);
    const codes = codesOf(reading, chosen);
    const size = Math.abs(codes[0]?.z ?? 1);
    list.replaceChildren(
      make("h3", {}, "At ", make("span", { className: "chip" }, visible(reading.tokens[chosen])),
        ` ${plural(codes.length, "atom")} fire${codes.length === 1 ? "s" : ""}${codes.length > 12 ? "; the 12 strongest" : ""}`),
      make("ul", { className: "codes" }, codes.slice(0, 12).map(({ atom, z }) => {
        const side = z < 0 ? 1 : 0;
        return make("li", { className: atom === shade ? "shading" : "" },
          make("button", {
            type: "button", className: `code ${SIDES[side]}`, "--share": `${(100 * Math.abs(z)) / size}%`,
            title: `Shade the text by atom ${atom}`, "aria-pressed": atom === shade,
            onclick: () => { shade = atom; show(); },
          }, make("span", { className: "level" }), signed(z, 1)),
          link(atom), make("span", { className: "meaning" }, "fires on ", chips(atoms, atoms.firesOn(atom, side).slice(0, 3), side)),
          atoms.pushed.length
            ? make("span", { className: "meaning" }, "pushes up ", chips(atoms, atoms.raised(atom, side).subarray(0, 4), side)) : null);
      })));
  }

  const nearness = ({ atom, z }) => Math.abs(z) / (atoms.most(atom) || Infinity);

  function choose(token, atom = codesOf(reading, token)[0]?.atom ?? shade) {
    chosen = token;
    shade = atom;
    show();
  }

  tokens.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(is[Math.max(0, Math.min(is.length - 1, is.indexOf(chosen) + step))]);
    tokens.children[chosen].focus();
  });
  place.replaceChildren(tokens, legend, list);
  // begin where an atom comes nearest to its strongest activation: there the text is clearly of its kind
  const first = is.flatMap((token) => codesOf(reading, token).map((code) => ({ token, ...code })))
    .reduce((best, code) => (nearness(code) > nearness(best) ? code : best), { token: is[0], atom: 0, z: 0 });
  choose(first.token, first.atom);
}

/** Read a text by `proxsae serve`; throws an error with the server's sentence. */
async function read(text) {
  const reply = await fetch("read", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ text }),
  });
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return unpack(found);
}
