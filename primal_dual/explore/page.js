// The page asks the server for a state as its address would, and shows what the server answers.

// A browser keeps a page that one goes back to, and the server forgets what it was connected to.
if (performance.getEntriesByType("navigation")[0]?.type === "back_forward") location.reload();
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

let hasEnded = false;

function explore(exchange) {
  const form = document.querySelector("form");
  const shown = (id) => document.getElementById(id);
  let count = 0;
  let addressTimer = null;
  let announcementTimer = null;

  const ask = (query) => { exchange.asked = [++count, query]; };
  const isAnswered = () => exchange.answer.count === count;
  const set = (control) => {
    const value = "logarithmic" in control.dataset ? Number((10 ** control.value).toPrecision(3)) : control.value;
    ask(new URLSearchParams([[control.name, value]]).toString());
  };
  form.addEventListener("input", (event) => { if (event.target.type !== "text") set(event.target); });
  form.addEventListener("change", (event) => { if (event.target.type === "text") set(event.target); });
  const refresh = () => { if (isAnswered()) show(); }; // else the answer will
  form.addEventListener("focusout", refresh); // in the place of what was refused
  form.addEventListener("submit", (event) => event.preventDefault());

  const beingUsed = (control) => control === document.activeElement
    && (control.type === "text" || control.matches(":active") || !isAnswered());

  const write = (element, text) => { // what stays as it was is not read out again
    if (element.textContent !== String(text)) element.textContent = text;
  };

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
      write(control.parentElement.querySelector("output"), said);
      if (control.ariaValueText !== String(said)) control.ariaValueText = said;
    }
  };

  const show = () => {
    if (hasEnded) return;
    const answer = exchange.answer;
    for (const [name, text] of Object.entries(answer.controls)) {
      fill(name, text, answer.options[name], answer.ends[name]);
      form.elements[name].disabled = answer.idle.includes(name);
    }
    write(shown("error"), answer.error);
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
    clearTimeout(announcementTimer);
    announcementTimer = setTimeout(() => {
      write(shown("announcement"), Object.entries(answer.readout || {}).map((row) => row.join(": ")).join("; "));
    }, 1000);
    clearTimeout(addressTimer); // browsers refuse to change it many times a second
    addressTimer = setTimeout(() => {
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
    if (event.target.dataset.copy) copy(event.target);
    const example = event.target.closest('a[href^="?"], a[data-query]');
    if (example) {
      example.dataset.query ??= example.search;
      example.search = withPoints(new URLSearchParams(example.dataset.query));
    }
  });
  window.addEventListener("popstate", refresh); // the address stays that of what is seen

  const copy = (button) => {
    const query = exchange.answer.query ? `?${exchange.answer.query}` : "";
    const address = location.origin + location.pathname + query;
    button.dataset.name ??= button.textContent;
    navigator.clipboard.writeText(button.dataset.copy === "address" ? address : shown("python").textContent).then(() => {
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = button.dataset.name; }, 2000);
    });
  };

  const withoutStops = (root) => { // Bokeh's figures do nothing by key
    for (const element of root.querySelectorAll("*")) {
      if (element.matches(".bk-events")) element.tabIndex = -1;
      if (element.shadowRoot) withoutStops(element.shadowRoot);
    }
  };
  withoutStops(document);
  ask(location.search.slice(1));
}

function serverHasEnded() {
  hasEnded = true;
  document.getElementById("error").textContent = "The server has ended. Start it again, and reload this page.";
  for (const control of document.forms[0].elements) control.disabled = true; // what is set now would be lost
}
