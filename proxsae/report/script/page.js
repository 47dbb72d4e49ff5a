// The page: what is asked for stands in the address, so that a view can be kept and the back button works.

const DEFAULTS = { find: "", show: "all", low: "", high: "", sort: "clearness", up: "", page: "" };

const asked = () => ({ ...DEFAULTS, ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))) });

function addressOf(ask) {
  const kept = Object.entries(ask).filter(([name, value]) => value !== "" && value !== DEFAULTS[name]);
  return `#${new URLSearchParams(kept)}`;
}

async function start() {
  const atoms = atomsOf(await unpack(JSON.parse(byId("data").textContent)));
  const controls = byId("controls").elements, card = byId("card");
  let found = [], table = "";

  const change = (parts) => {
    history.replaceState(history.state, "", addressOf({ ...asked(), ...parts }));
    show();
  };
  const open = (atom) => {
    const isNew = atom !== null && asked().atom === undefined; // further atoms take the place of the first
    history[isNew ? "pushState" : "replaceState"](isNew || history.state, "", addressOf({ ...asked(), atom: atom ?? "" }));
    show();
  };
  const leave = () => (history.state ? history.back() : open(null));

  function show() {
    const { atom, ...ask } = asked();
    for (const menu of [controls.show, controls.sort]) {
      if (![...menu.options].some(({ value }) => value === ask[menu.name])) ask[menu.name] = DEFAULTS[menu.name];
    }
    if (JSON.stringify(ask) !== table) {
      table = JSON.stringify(ask);
      for (const name of ["find", "show", "low", "high", "sort"]) {
        if (controls[name].value !== ask[name]) controls[name].value = ask[name];
      }
      found = select(atoms, ask);
      showTable(atoms, found, ask, change);
    }
    const number = Number(atom);
    if (atom && Number.isInteger(number) && number >= 0 && number < atoms.n_atoms) {
      showCard(byId("card-body"), atoms, number);
      if (!card.open) card.showModal();
    } else if (card.open) card.close();
  }

  // an address of one atom alone, such as links have, keeps what the table shows
  document.addEventListener("click", (event) => {
    const target = event.target.closest("a.atom");
    if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(target.hash.slice("#atom=".length));
  });
  card.addEventListener("close", () => asked().atom !== undefined && leave());
  card.addEventListener("click", (event) => event.target === card && card.close());
  const step = (by) => {
    const at = found.indexOf(Number(asked().atom));
    const next = found[at + by];
    if (next !== undefined) open(next);
  };
  byId("card-earlier").onclick = () => step(-1);
  byId("card-later").onclick = () => step(1);
  card.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  window.addEventListener("hashchange", show);

  const options = (menu, choices) => menu.append(...Object.entries(choices)
    .filter(([name]) => atoms.signed || !OF_SIGNED.includes(name))
    .map(([name, [text]]) => make("option", { value: name }, text)));
  options(controls.show, KINDS);
  options(controls.sort, ORDERS);
  let waiting;
  byId("controls").addEventListener("input", (event) => {
    clearTimeout(waiting);
    const { name, value } = event.target;
    waiting = setTimeout(() => change({ [name]: value, page: "", ...(name === "sort" ? { up: "" } : {}) }), 120);
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").addEventListener("reset", () => change(DEFAULTS));

  showPlots(byId("plots"), atoms.plots, (low, high) => {
    change({ low: String(100 * low), high: String(100 * high), sort: "density", page: "" });
    byId("atoms").scrollIntoView();
  });
  startTexts(atoms);
  show();
  document.documentElement.dataset.ready = "";
}

function startTexts(atoms) {
  const place = byId("reading");
  const choice = byId("texts"), form = byId("ask");
  const offer = ({ tokens, is_read: isRead }, i) => choice.append(make("option", { value: i },
    `${visible(tokens.filter((_, k) => isRead[k]).slice(0, 12).join("").trim())}\u2026`));
  atoms.readings.forEach(offer);
  choice.onchange = () => showReading(place, atoms, atoms.readings[choice.value]);
  choice.onchange();
  if (!form) return;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const state = byId("ask-state");
    form.elements.send.disabled = true;
    state.textContent = "Reading\u2026";
    try {
      const last = atoms.readings.push(await read(form.elements.text.value)) - 1;
      offer(atoms.readings[last], last);
      choice.value = last;
      choice.onchange();
      state.textContent = "";
    } catch (error) {
      state.textContent = error instanceof TypeError ? "proxsae serve does not answer; is it still running?" : error.message;
    }
    form.elements.send.disabled = false;
  });
  form.elements.text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}

start().catch((error) => {
  byId("count").textContent = `This page cannot be shown: ${error.message}`;
  throw error;
});
