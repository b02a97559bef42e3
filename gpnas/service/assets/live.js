"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const say = (text) => { byId("said").textContent = text; };
  const wrong = (text) => { byId("wrong").textContent = text; };

  const post = async (path, body) => {
    const response = await fetch(path, {
      method: "POST", credentials: "same-origin",
      headers: { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID ? crypto.randomUUID() : String(Math.random()) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    const document = text ? JSON.parse(text) : {};
    if (!response.ok) throw new Error(document.detail || response.statusText);
    return document;
  };
  const doing = async (what, action) => {
    wrong("");
    try { await action(); say(what); } catch (error) { wrong(error.message); }
  };

  const begin = byId("begin");
  if (begin) {
    const space = byId("space"), checked = byId("checked");
    let timer = 0, asked = 0;
    const check = async () => {
      const number = ++asked;
      let text = "", bad = false;
      try {
        const document = await post("/v1/space-check", { space: space.value });
        text = `${document.architectures.toLocaleString()} architectures`;
      } catch (error) { text = error.message; bad = true; }
      if (number !== asked) return; // it was typed on meanwhile
      checked.textContent = text;
      checked.className = bad ? "wrong" : "";
      space.setAttribute("aria-invalid", String(bad));
    };
    space.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(check, 400); });
    begin.addEventListener("submit", (event) => {
      event.preventDefault();
      const form = new FormData(begin);
      doing("It has begun.", async () => {
        const document = await post("/v1/searches", {
          id: form.get("id"), space: form.get("space"), trials: Number(form.get("trials")),
          strategy: form.get("strategy"), kind: form.get("kind"),
        });
        location.assign(`/searches/${encodeURIComponent(document.id)}`);
      });
    });
  }

  const fresh = (name, cells) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    head.append(name);
    row.append(head, ...Array.from({ length: cells }, () => document.createElement("td")));
    return row;
  };
  const link = (text) => { byId("link").textContent = text; };
  const followed = (path, again, opened) => {
    const source = new EventSource(path);
    source.onopen = () => { link("live"); opened(); };
    source.onerror = () => {
      link("lost, trying again");
      if (source.readyState === EventSource.CLOSED) setTimeout(again, 1000); // it was refused, so the browser gives up
    };
    return source;
  };
  const named = (family, axes) => `${family}:${Object.entries(axes).map(([name, value]) => `${name}=${value}`).join(",")}`;
  const ends = (counts) => ["observed", "stopped", "failed"].reduce((sum, state) => sum + (counts[state] || 0), 0);

  // the list: rows change as searches do; its own box and that of a sparkline are the server's
  const list = document.querySelector("#searches tbody");
  const WIDTH = 120, HEIGHT = 28;
  const sparkline = (values) => {
    const low = Math.min(...values), span = Math.max(...values) - low || 1;
    return values.map((value, place) =>
      `${(place * WIDTH / (values.length - 1)).toFixed(1)},${(2 + (HEIGHT - 4) * (1 - (value - low) / span)).toFixed(1)}`).join(" ");
  };
  const drawn = (cell, values) => {
    if (values.length < 2) { cell.replaceChildren(); return; }
    let line = cell.querySelector("polyline");
    if (!line) {
      const make = (name, of) => {
        const element = document.createElementNS("http://www.w3.org/2000/svg", name);
        Object.entries(of).forEach(([key, value]) => element.setAttribute(key, value));
        return element;
      };
      const box = make("svg", { width: WIDTH, height: HEIGHT, role: "img", "aria-label": "best value so far, after each trial" });
      line = make("polyline", {});
      box.append(line);
      cell.replaceChildren(box);
    }
    line.setAttribute("points", sparkline(values));
  };
  const listed = (it) => {
    let row = list.querySelector(`tr[data-search="${it.id}"]`);
    if (!row) {
      const to = document.createElement("a");
      to.href = `/searches/${encodeURIComponent(it.id)}`;
      to.textContent = it.id;
      row = fresh(to, 5);
      row.dataset.search = it.id;
      const next = [...list.rows].find((other) => other.dataset.search > it.id);
      list.insertBefore(row, next || null);
      byId("none")?.remove();
    }
    const failed = it.counts.failed ? `, ${it.counts.failed} failed` : "";
    const best = it.best ? `${Number(it.best.value).toPrecision(4)} ${it.objective.unit}`.trim() : "";
    const architecture = it.best ? named(it.best.architecture.family, it.best.architecture.axes) : "";
    const texts = [it.state, `${ends(it.counts)} of ${it.trials}${failed}`, best, it.state === "unreadable" ? it.note : architecture];
    texts.forEach((text, place) => { if (row.cells[place + 1].textContent !== text) row.cells[place + 1].textContent = text; });
    row.cells[1].className = `state-${it.state}`;
    drawn(row.cells[5], it.course);
  };
  const watch = () => {
    const source = followed("/v1/events", watch, () => undefined);
    source.addEventListener("search", (event) => listed(JSON.parse(event.data)));
    source.addEventListener("gone", (event) => list.querySelector(`tr[data-search="${JSON.parse(event.data).id}"]`)?.remove());
  };
  if (list) watch();

  if (!byId("data")) return;
  const data = JSON.parse(byId("data").textContent);
  const base = `/v1/searches/${encodeURIComponent(data.search)}`;

  document.querySelectorAll("button[data-post]").forEach((button) => button.addEventListener("click", () =>
    doing(`${button.textContent}: done.`, async () => { await post(`${base}/${button.dataset.post}`); refresh(); })));
  document.querySelectorAll("form[data-post]").forEach((form) => form.addEventListener("submit", (event) => {
    event.preventDefault();
    doing("Extended.", async () => {
      const granted = await post(`${base}/extend`, { trials: Number(new FormData(form).get("trials")) });
      byId("granted").textContent = granted.trials;
    });
  }));
  const wish = byId("wish");
  if (wish) wish.addEventListener("submit", (event) => {
    event.preventDefault();
    const [family, axes] = byId("architecture").value.trim().split(":");
    const plain = (text) => /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text === "true" ? true : text === "false" ? false : text;
    const pairs = (axes || "").split(",").map((each) => each.split("=").map((part) => part.trim()));
    const architecture = { family, axes: Object.fromEntries(pairs.map(([name, value]) => [name, plain(value || "")])) };
    doing("Noted.", () => post(`${base}/${event.submitter.value}`, { architecture }));
  });

  // rows of the table change with the events themselves; what is counted or drawn is asked for after them
  const body = document.querySelector("#trials-table tbody");
  const row = (name) => {
    let element = byId(`trial-${name}`);
    if (!element) {
      element = fresh(name, 4);
      element.id = `trial-${name}`;
      body.append(element);
    }
    return element;
  };
  const put = (name, cells) => Object.entries(cells).forEach(([place, text]) => { row(name).cells[place].textContent = text; });
  const number = (value) => value === null || value === undefined ? "" : Number(value).toFixed(4);
  const seen = {
    candidate: (it) => put(it.id, { 1: named(it.family, it.axes), 2: "pending", 4: "0" }),
    attempt: (it) => put(it.candidate, { 2: "running", 4: it.number }),
    progress: (it) => put(it.candidate, { 3: number(it.value) }),
    observation: (it) => {
      const state = it.value === null ? "failed" : it.stopped ? "stopped" : "observed";
      put(it.candidate, { 2: state, 3: number(it.stopped ? it.stopped.value : it.value) });
      say(`${it.candidate}: ${state} ${number(it.value)}`);
    },
    ended: (it) => { // unless the next attempt has begun
      if (row(it.candidate).cells[4].textContent === String(it.number)) put(it.candidate, { 2: "pending" });
    },
    event: () => undefined,
    session: () => undefined,
  };

  let waiting = 0;
  const soon = () => { waiting = waiting || setTimeout(() => { waiting = 0; refresh(); }, 250); };
  const refresh = async () => {
    try {
      const response = await fetch(base, { credentials: "same-origin" });
      if (!response.ok) return;
      const summary = await response.json();
      byId("state").textContent = summary.state;
      byId("state").className = `state-${summary.state}`;
      byId("ended").textContent = ends(summary.counts);
      byId("granted").textContent = summary.trials;
      if (summary.best) {
        byId("best").textContent = `${Number(summary.best.value).toPrecision(4)} ${data.objective.unit}`.trim();
        byId("best-architecture").textContent = named(summary.best.architecture.family, summary.best.architecture.axes);
      }
      draw();
    } catch (error) { /* the link is lost: its state is shown, and it is tried again */ }
  };

  const FIGURES = ["course", "curves", "costs"];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // the drawing library is large, so the page is painted before it is asked for
  let library = null;
  const drawable = () => library = library || new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "/assets/vega.js";
    script.onload = done;
    script.onerror = () => { library = null; script.remove(); failed(new Error("the drawing library did not come")); };
    document.head.append(script);
  });
  let drawing = false, again = false;
  const draw = async () => {
    if (drawing) { again = true; return; }
    drawing = true;
    try {
      await drawable();
      for (const name of FIGURES) {
        const response = await fetch(`${base}/figures/${name}`, { credentials: "same-origin" });
        if (!response.ok) continue;
        const figure = await response.json();
        let element = byId(`figure-${name}`);
        if (!element) {
          element = document.createElement("figure");
          element.id = `figure-${name}`;
          byId("figures").append(element);
        }
        const caption = document.createElement("figcaption");
        caption.textContent = figure.heading;
        const places = figure.views[0].charts.map((spec) => {
          const place = document.createElement("div");
          place.setAttribute("role", "img");
          place.setAttribute("aria-label", spec.usermeta.alt);
          return [place, spec];
        });
        const before = element.offsetHeight;
        element.style.minHeight = `${before}px`;
        element.replaceChildren(caption, ...places.map(([place]) => place));
        for (const [place, spec] of places) {
          await vegaEmbed(place, { ...spec, title: undefined, width: "container", autosize: { type: "fit-x", contains: "padding" } }, {
            actions: false, ast: true, renderer: "canvas", mode: "vega-lite", defaultStyle: false, tooltip: false,
            config: figure.schemes[dark.matches ? "dark" : "light"],
          });
        }
        element.style.minHeight = "";
      }
    } finally {
      drawing = false;
      if (again) { again = false; draw(); }
    }
  };

  let last = data.cursor;
  const listen = () => {
    const source = followed(`${base}/events?after=${encodeURIComponent(last)}`, listen, refresh);
    for (const [kind, change] of Object.entries(seen)) {
      source.addEventListener(kind, (event) => {
        last = event.lastEventId || last;
        change(JSON.parse(event.data));
        soon();
      });
    }
    source.addEventListener("gone", (event) => { source.close(); link("gone"); wrong(JSON.parse(event.data).detail); });
  };
  listen();
  requestAnimationFrame(() => setTimeout(() => draw().catch(() => undefined), 0)); // after the first paint
})();
