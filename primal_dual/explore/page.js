// The page asks the server for a state as its address would, and shows what the server answers.

function explore(exchange) {
  const form = document.querySelector("form");
  const shown = (id) => document.getElementById(id);
  let count = 0;
  let address = null;

  const ask = (query) => { exchange.asked = [++count, query]; };
  const set = (control) => {
    const value = "logarithmic" in control.dataset ? Number((10 ** control.value).toPrecision(3)) : control.value;
    ask(new URLSearchParams([[control.name, value]]).toString());
  };
  form.addEventListener("input", (event) => { if (event.target.type !== "text") set(event.target); });
  form.addEventListener("change", (event) => { if (event.target.type === "text") set(event.target); });
  form.addEventListener("submit", (event) => event.preventDefault());

  const beingUsed = (control) =>
    control === document.activeElement && (control.type === "text" || control.matches(":active"));

  const fill = (name, text, options, end) => {
    const control = form.elements[name];
    if (end !== undefined) {
      control.max = end;
      text = Math.min(text, end);
    }
    if (options && options.join() !== Array.from(control.options, (each) => each.value).join()) {
      control.replaceChildren(...options.map((each) => new Option(each)));
    }
    if (!beingUsed(control)) {
      control.value = "logarithmic" in control.dataset ? Math.log10(text) : text;
      if (control.selectedIndex === -1) control.selectedIndex = 0; // what the server takes for a word that is not there
    }
    if (control.type === "range") {
      const said = control.dataset.last && Number(text) === Number(control.max) ? control.dataset.last : text;
      control.parentElement.querySelector("output").textContent = said;
      control.setAttribute("aria-valuetext", said);
    }
  };

  const show = () => {
    const answer = exchange.answer;
    for (const [name, text] of Object.entries(answer.controls)) {
      fill(name, text, answer.options[name], answer.ends[name]);
      form.elements[name].disabled = answer.idle.includes(name);
    }
    shown("error").textContent = answer.error;
    if (answer.readout) {
      shown("python").textContent = answer.python;
      shown("readout").replaceChildren(...Object.entries(answer.readout).map(([name, text]) => {
        const row = document.createElement("div");
        row.append(document.createElement("dt"), document.createElement("dd"));
        row.firstChild.textContent = name;
        row.lastChild.textContent = text;
        return row;
      }));
    }
    clearTimeout(address); // browsers refuse to change it many times a second
    address = setTimeout(() => {
      history.replaceState(null, "", answer.query ? `?${answer.query}` : location.pathname);
    }, 200);
  };
  exchange.properties.answer.change.connect(show);

  const withPoints = (query) => { // an example starts over, but with the points of the reader
    for (const { type, name, value } of form.elements) {
      if (type === "text" && !query.has(name)) query.set(name, value);
    }
    return query;
  };

  document.addEventListener("click", (event) => {
    const what = event.target.dataset.copy;
    if (what) navigator.clipboard.writeText(what === "address" ? location.href : shown(what).textContent);
    const example = event.target.closest('a[href^="?"]');
    if (example) example.search = withPoints(new URLSearchParams(example.search));
  });
  ask(location.search.slice(1));
}

function serverHasEnded() {
  document.getElementById("error").textContent = "The server has ended. Start it again, and reload this page.";
}
