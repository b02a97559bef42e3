"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures"), datasets = read("datasets"), schemes = read("schemes");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const live = new Map(); // element of a drawing -> what was drawn there

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const save = (name, content, type) => {
    const url = typeof content === "string" && content.startsWith("data:")
      ? content : URL.createObjectURL(new Blob([content], { type }));
    const link = make("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  };

  // a spreadsheet must not take a name for a formula
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value !== "number" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = (rows) => `${rows.map((row) => row.map(quoted).join(",")).join("\r\n")}\r\n`;

  const numbers = (spec) => {
    const fields = spec.usermeta.fields;
    const same = (rows) => rows.length && Object.keys(rows[0]).join() === fields.join();
    const rows = spec.datasets.map((name) => datasets[name]).find(same) || [];
    return [fields, ...rows.map((row) => fields.map((field) => row[field] ?? ""))];
  };

  const options = (scheme, config = schemes[scheme]) => ({
    actions: false, ast: true, renderer: "svg", mode: "vega-lite", tooltip: { disableDefaultStyle: true }, config,
  });

  // where entries of a legend, or legends, have no room beside each other they stand beneath each other
  const NARROW = 460;
  const fitting = (scheme, width) => {
    const { legend, ...others } = schemes[scheme];
    const stacked = width < NARROW ? { columns: 1, layout: { top: { direction: "vertical", anchor: "start" } } } : {};
    return { ...others, legend: { ...legend, ...stacked } };
  };

  const drawable = (spec, changes) => ({ ...spec, datasets: Object.fromEntries(spec.datasets.map((name) => [name, structuredClone(datasets[name])])), ...changes });

  const draw = async (element, spec) => {
    live.get(element)?.result?.finalize();
    const scheme = dark.matches && !matchMedia("print").matches ? "dark" : "light";
    const fitted = drawable(spec, { title: undefined, width: "container", autosize: { type: "fit-x", contains: "padding" } });
    live.set(element, { spec, result: null });
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", spec.usermeta.alt);
    // a reader of the page hears the alternative text, not each of hundreds of marks
    const inner = make("div", { className: "inner", ariaHidden: "true" });
    element.replaceChildren(inner);
    const result = await vegaEmbed(inner, fitted, options(scheme, fitting(scheme, element.clientWidth)));
    live.set(element, { spec, result });
    element.style.minHeight = "";
  };

  const whole = async (spec, kind) => {
    const titled = drawable(spec, { title: { text: spec.usermeta.lines } });
    const place = make("div", { className: "hidden", ariaHidden: "true" });
    document.body.append(place);
    const result = await vegaEmbed(place, titled, options("light"));
    const content = kind === "svg" ? await result.view.toSVG() : await result.view.toImageURL("png", 2);
    result.finalize();
    place.remove();
    return content;
  };

  const downloads = (name, spec) => {
    const button = (kind, action) => make("button", { type: "button", textContent: kind, onclick: action, ariaLabel: `${kind}: ${spec.usermeta.title}` });
    return make("p", { className: "downloads" },
      button("CSV", () => save(`${name}.csv`, csv(numbers(spec)), "text/csv")),
      button("SVG", async () => save(`${name}.svg`, await whole(spec, "svg"), "image/svg+xml")),
      button("PNG", async () => save(`${name}.png`, await whole(spec, "png"), "image/png")));
  };

  const tabled = (spec) => {
    const details = make("details", { className: "numbers" }, make("summary", { textContent: "Numbers" }));
    details.addEventListener("toggle", () => {
      if (details.children.length > 1) return;
      const [fields, ...rows] = numbers(spec);
      const head = make("tr", {}, ...fields.map((field) => make("th", { scope: "col", textContent: field })));
      const short = (value) => typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(6) : value;
      const body = rows.slice(0, 500).map((row) => make("tr", {}, ...row.map((value) => make("td", { textContent: short(value) }))));
      const scroll = make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: `Numbers: ${spec.usermeta.title}` },
        make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
      details.append(scroll, ...(rows.length > 500 ? [make("p", { textContent: `the first 500 of ${rows.length} rows; the CSV has all` })] : []));
    });
    return details;
  };

  const near = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    near.unobserve(entry.target);
    draw(entry.target, live.get(entry.target).spec);
  }), { rootMargin: "600px" });

  const show = (article, view) => {
    const name = article.dataset.figure;
    const charts = article.querySelector(".charts");
    charts.querySelectorAll(".drawing").forEach((element) => { near.unobserve(element); live.get(element)?.result?.finalize(); live.delete(element); });
    charts.replaceChildren(...view.specs.map((spec, place) => {
      const drawing = make("div", { className: "drawing" });
      drawing.style.minHeight = `${spec.height + 60}px`;
      live.set(drawing, { spec, result: null });
      near.observe(drawing);
      const file = view.specs.length > 1 ? `${name}-${place + 1}` : name;
      return make("figure", { className: "chart" },
        make("figcaption", { textContent: spec.usermeta.title }), drawing, downloads(file, spec), tabled(spec));
    }));
  };

  document.querySelectorAll(".figure").forEach((article) => {
    const views = figures[article.dataset.figure];
    article.querySelector("select")?.addEventListener("change", (event) => show(article, views[Number(event.target.value)]));
    show(article, views[0]);
  });

  const redraw = () => Promise.all([...live].filter(([, each]) => each.result).map(([element, each]) => draw(element, each.spec)));
  dark.addEventListener("change", redraw);
  const all = () => Promise.all([...live].map(([element, each]) => { near.unobserve(element); return draw(element, each.spec); }));
  addEventListener("beforeprint", all);
  addEventListener("afterprint", redraw);
  window.gpnas = { drawn: all };

  const key = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.sort ?? cell.textContent.trim();
    return value === "" ? null : Number.isNaN(Number(value)) ? value : Number(value);
  };
  document.querySelectorAll(".sortable").forEach((box) => {
    const table = box.querySelector("table"), body = table.tBodies[0], rows = [...body.rows];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", { type: "button", textContent: head.textContent });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        [...table.tHead.rows[0].cells].forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const sorted = rows.map((row) => [key(row, column), row]).sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
          const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
          return up ? order : -order;
        });
        body.append(...sorted.map(([, row]) => row));
      });
    });
    const text = box.querySelector("input[type=search]"), state = box.querySelector("select"), count = box.querySelector(".count");
    const words = rows.map((row) => row.textContent.toLowerCase());
    const filter = () => {
      const wanted = text.value.trim().toLowerCase(), which = state?.value || "";
      let shown = 0;
      rows.forEach((row, place) => {
        row.hidden = !words[place].includes(wanted) || (which !== "" && row.dataset.state !== which);
        shown += !row.hidden;
      });
      count.textContent = shown === rows.length ? `${shown} row${shown === 1 ? "" : "s"}` : `${shown} of ${rows.length} rows`;
    };
    text.addEventListener("input", filter);
    state?.addEventListener("change", filter);
    box.querySelector("[data-csv]").addEventListener("click", () => {
      const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
      const plain = (cell) => { const copy = cell.cloneNode(true); copy.querySelector("details")?.remove(); return cell.dataset.sort ?? copy.textContent.trim(); };
      save(`${box.id.replace("table-", "")}.csv`, csv([heads, ...[...body.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(plain))]), "text/csv");
    });
  });

  document.querySelectorAll("[data-comparer]").forEach((box) => {
    const zoom = box.querySelector("[data-zoom]"), across = box.querySelector("[data-across]"), down = box.querySelector("[data-down]");
    const apply = () => {
      box.style.setProperty("--zoom", zoom.value);
      box.style.setProperty("--x", `${across.value}%`);
      box.style.setProperty("--y", `${down.value}%`);
      box.querySelector("[data-magnified]").textContent = `${zoom.value}×`;
    };
    [zoom, across, down].forEach((control) => control.addEventListener("input", apply));
    const move = (control, by) => { control.value = Number(control.value) + by; apply(); };
    const keys = { ArrowLeft: [across, -5], ArrowRight: [across, 5], ArrowUp: [down, -5], ArrowDown: [down, 5], "+": [zoom, 1], "=": [zoom, 1], "-": [zoom, -1] };
    const pictures = box.querySelector(".pictures");
    pictures.addEventListener("keydown", (event) => {
      if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      move(...keys[event.key]);
    });
    pictures.addEventListener("pointermove", (event) => {
      const glass = event.target.closest(".glass");
      if (!glass) return;
      const frame = glass.getBoundingClientRect();
      across.value = 100 * (event.clientX - frame.left) / frame.width;
      down.value = 100 * (event.clientY - frame.top) / frame.height;
      apply();
    });
    pictures.addEventListener("click", (event) => { if (event.target.closest(".glass")) { zoom.value = Number(zoom.value) > 1 ? 1 : 4; apply(); } });
    apply();
  });
})();
