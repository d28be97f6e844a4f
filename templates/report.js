/* What moves in a report: language, theme, tables, and figures that are drawn when they come into view.
   Everything it needs is in the page; it asks nothing of any network. */
"use strict";

const NitroReport = (() => {
  const root = document.documentElement;
  const store = {
    // A page opened from a file may not be allowed to remember anything.
    get(key) { try { return localStorage.getItem(key); } catch { return null; } },
    set(key, value) { try { localStorage.setItem(key, value); } catch { /* then it is asked again */ } },
  };

  /** Decompress a base64 text that holds gzip data. @returns {Promise<string>} */
  async function unpacked(base64) {
    const packed = Uint8Array.from(atob(base64.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function isDark() {
    const chosen = root.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  // --- language and theme -------------------------------------------------------------------------------------------

  function chooseLanguage(language) {
    const before = currentAnchor();
    root.dataset.language = language;
    root.lang = language;
    const title = document.querySelector(`.page[lang="${language}"] h1`);
    if (title) document.title = title.textContent;
    for (const select of document.querySelectorAll(".choose-language")) select.value = language;
    if (before) document.getElementById(before.replace(/^[a-z]+-/, `${language}-`))?.scrollIntoView();
    drawVisible();
    drawRest();
  }

  /** The section that is at the top of the screen, so that a change of language stays in place. */
  function currentAnchor() {
    const sections = [...document.querySelectorAll(`.page[lang="${root.dataset.language}"] section[id]`)];
    return sections.filter((section) => section.getBoundingClientRect().top < 120).pop()?.id;
  }

  function chooseTheme(theme) {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    store.set("nitro-theme", theme);
    for (const select of document.querySelectorAll(".choose-theme")) select.value = theme;
    repaint();
  }

  function repaint() {
    document.dispatchEvent(new CustomEvent("nitro-theme", { detail: { dark: isDark() } }));
    for (const plot of document.querySelectorAll(".plot[data-drawn]")) {
      delete plot.dataset.drawn;
      watcher.observe(plot);
    }
    drawRest();
  }

  // --- figures ------------------------------------------------------------------------------------------------------

  let vegaLoaded = null;
  function loadVega() {
    vegaLoaded ??= unpacked(document.getElementById("vega-bundle").textContent).then((code) => {
      const script = document.createElement("script");
      script.textContent = `(function () {${code}\n})();`;
      document.head.append(script);
    });
    return vegaLoaded;
  }

  function withWidth(spec, width) {
    for (const joint of ["hconcat", "vconcat"]) {
      if (!(joint in spec)) continue;
      const parts = spec[joint];
      if (joint === "hconcat" && width < 560) {
        const { hconcat, ...rest } = spec;
        return withWidth({ ...rest, vconcat: hconcat }, width);
      }
      const each = joint === "vconcat" ? width : Math.floor((width - 70 * (parts.length - 1)) / parts.length);
      return { ...spec, [joint]: parts.map((part) => withWidth(part, each)) };
    }
    return { ...spec, width: Math.max(width - 70, 120) };
  }

  const pictures = new WeakMap(); // plot: the promise that it is drawn

  /** Draw a figure unless it is drawn; one that is asked for again while it is drawn, in other colours, comes after. */
  function draw(plot) {
    if (!plot.dataset.drawn) {
      plot.dataset.drawn = "pending";
      const before = pictures.get(plot) ?? Promise.resolve();
      pictures.set(plot, before.catch(() => {}).then(() => drawNow(plot)));
    }
    return pictures.get(plot);
  }

  async function drawNow(plot) {
    await loadVega();
    const looks = JSON.parse(document.getElementById("figure-looks").textContent);
    const spec = JSON.parse(plot.parentElement.querySelector(".figure-spec").textContent);
    spec.$schema = looks.schema;
    const { [isDark() ? "dark" : "light"]: config, words } = looks[plot.closest(".edition").lang];
    await window.vegaEmbed(plot, withWidth(spec, plot.clientWidth), {
      mode: "vega-lite",
      renderer: "svg",
      ast: true, // the page forbids code made from text
      config,
      actions: { export: true, source: false, compiled: false, editor: false },
      i18n: words,
      downloadFileName: plot.dataset.figure,
      tooltip: { theme: isDark() ? "dark" : "light" },
    });
    if (plot.dataset.drawn) plot.dataset.drawn = "yes";
  }

  // --- timeline -----------------------------------------------------------------------------------------------------

  function mountTimeline(mount) {
    if (mount.dataset.mounted) return;
    mount.dataset.mounted = "yes";
    const data = document.querySelector(`.timeline-data[data-timeline="${mount.dataset.timeline}"]`);
    const labels = JSON.parse(mount.parentElement.querySelector(".timeline-labels").textContent);
    NitroTimeline.mount(mount, data, labels, { lazy: false }); // the page mounts it when it comes into view
  }

  // --- what is in view is drawn -------------------------------------------------------------------------------------

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        if (entry.target.classList.contains("plot")) draw(entry.target);
        else mountTimeline(entry.target);
      }
    },
    { rootMargin: "400px" },
  );

  function drawVisible() {
    for (const element of document.querySelectorAll(".plot:not([data-drawn]), .timeline-mount:not([data-mounted])")) {
      watcher.unobserve(element);
      watcher.observe(element);
    }
  }

  /** Draw what is not in view when there is time: a browser that prints does not wait for pictures. */
  async function drawRest() {
    const page = document.querySelector(`.page[lang="${root.dataset.language}"]`);
    for (const element of page.querySelectorAll(".plot, .timeline-mount")) {
      await new Promise((resume) => (window.requestIdleCallback ?? setTimeout)(resume));
      if (!element.clientWidth) continue;
      if (element.classList.contains("plot")) await draw(element);
      else mountTimeline(element);
    }
  }

  /** Draw everything at once, for printing and for tests. */
  async function drawAll() {
    const page = document.querySelector(`.page[lang="${root.dataset.language}"]`);
    for (const mount of page.querySelectorAll(".timeline-mount")) {
      mountTimeline(mount);
      await mount.nitroTimeline.ready;
    }
    await Promise.all([...page.querySelectorAll(".plot")].map(draw));
  }

  // --- tables -------------------------------------------------------------------------------------------------------

  function sortBy(header) {
    const table = header.closest("table");
    const place = [...header.parentElement.children].indexOf(header);
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const numeric = rows.some((row) => row.cells[place].dataset.value !== undefined);
    // Numbers are most often looked at from the top, names from the beginning.
    const first = numeric ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = header.getAttribute("aria-sort") === first ? other : first;
    for (const cell of header.parentElement.children) cell.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    const key = (row) => {
      const cell = row.cells[place];
      if (!numeric) return cell.textContent;
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => {
      const [one, two] = [key(a), key(b)];
      if (one === null || two === null) return (one === null) - (two === null); // what is not known comes last
      return sign * (numeric ? one - two : one.localeCompare(two));
    });
    const shown = table.classList.contains("show-all") ? rows.length : rows.filter((r) => !r.classList.contains("more")).length;
    rows.forEach((row, index) => row.classList.toggle("more", index >= shown));
    body.append(...rows);
  }

  function search(input) {
    const figure = input.closest("figure");
    const table = figure.querySelector("table");
    const wanted = input.value.trim().toLowerCase();
    let found = 0;
    for (const row of table.tBodies[0].rows) {
      const fits = !wanted || row.textContent.toLowerCase().includes(wanted);
      row.classList.toggle("filtered", !fits);
      found += fits;
    }
    const status = figure.querySelector(".table-found");
    const total = table.tBodies[0].rows.length;
    status.textContent = wanted ? status.dataset.text.replace("{shown}", found).replace("{total}", total) : "";
    if (wanted) expand(figure, true);
  }

  function expand(figure, isAll) {
    figure.querySelector("table").classList.toggle("show-all", isAll);
    const button = figure.querySelector(".show-more");
    if (!button) return;
    button.textContent = isAll ? button.dataset.fewer : button.dataset.more;
    button.setAttribute("aria-expanded", String(isAll));
  }

  // --- start --------------------------------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const sort = event.target.closest(".sort");
    if (sort) sortBy(sort.closest("th"));
    const more = event.target.closest(".show-more");
    if (more) expand(more.closest("figure"), !more.closest("figure").querySelector("table").classList.contains("show-all"));
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches(".table-search")) search(event.target);
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches(".choose-language")) chooseLanguage(event.target.value);
    if (event.target.matches(".choose-theme")) chooseTheme(event.target.value);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  addEventListener("beforeprint", drawAll);
  const theme = store.get("nitro-theme");
  if (theme === "light" || theme === "dark") chooseTheme(theme);
  drawVisible();
  drawRest();

  return { drawAll, chooseLanguage, chooseTheme };
})();
