// Renews the page without a reload: fetches it again after each sample and swaps <main>, leaving what the reader has
// opened, focused and scrolled to as it is. Everything is there without this script, too.
"use strict";
(() => {
  const notice = document.getElementById("notice");
  const make = (page) => page.querySelector("meta[name=make]")?.content;
  const main = () => document.getElementById("main");
  // When the newest answer came, by a clock that nobody sets.
  let answered = performance.now();
  // The server's clock less ours, seconds; what is said of ages must not depend on the reader's clock.
  let skew = 0;
  // Why there is no newer page, and since when.
  let trouble = null;
  let timer = 0;

  const number = (name) => {
    const text = main().dataset[name];
    return text === undefined ? NaN : Number(text);
  };
  const age = () => Math.max(0, Date.now() / 1000 + skew - number("timestamp"));
  const isSelecting = () => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && main().contains(selection.anchorNode);
  };
  const said = (seconds) => {
    const whole = Math.floor(seconds);
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  };

  function show() {
    const old = age();
    const interval = number("interval");
    const label = document.getElementById("age");
    if (label && !Number.isNaN(old)) label.textContent = `, ${said(old)} ago`;
    let text = "";
    if (trouble) {
      const silent = said((performance.now() - answered) / 1000);
      text = `The exporter has not answered for ${silent} (${trouble}). What you see is from before.`;
    } else if (old > 2 * interval + 2 && isSelecting()) {
      text = `This is ${said(old)} old: it waits while text is selected.`;
    } else if (old > 2 * interval + 2) {
      text = `The newest sample is ${said(old)} old, though one is due every ${said(interval)}. The exporter\u2019s log says why.`;
    }
    main().classList.toggle("stale", text !== "");
    notice.hidden = text === "";
    // Only a change is read aloud.
    if (notice.textContent !== text) notice.textContent = text;
  }

  // Where an element is, in words that fit the next page too: its nearest ancestor with an id, and its place therein.
  const PLACES = "summary, a, button, .scroll, .long";
  function place(element) {
    const anchor = element?.closest("main [id]");
    if (!anchor) return null;
    const order = [anchor, ...anchor.querySelectorAll(PLACES)].indexOf(element);
    return order < 0 ? null : { id: anchor.id, order };
  }
  function at(found, page) {
    const anchor = found && page.querySelector(`#${CSS.escape(found.id)}`);
    return anchor && [anchor, ...anchor.querySelectorAll(PLACES)][found.order];
  }

  function swap(fresh) {
    const stale = main();
    const focused = place(document.activeElement);
    const scrolled = [...stale.querySelectorAll(".scroll, .long")]
      .filter((element) => element.scrollLeft || element.scrollTop)
      .map((element) => [place(element), element.scrollLeft, element.scrollTop]);
    const [left, top] = [window.scrollX, window.scrollY];
    for (const details of fresh.querySelectorAll("details[id]")) {
      const before = document.getElementById(details.id);
      if (before) details.open = before.open;
    }
    addCopies(fresh);
    stale.replaceWith(document.adoptNode(fresh));
    at(focused, fresh)?.focus({ preventScroll: true });
    for (const [found, x, y] of scrolled) at(found, fresh)?.scrollTo(x, y);
    window.scrollTo({ left, top, behavior: "instant" });
  }

  // Without HTTPS and away from localhost a browser gives no clipboard; then a click still selects the command.
  function addCopies(within) {
    if (!navigator.clipboard) return;
    for (const command of within.querySelectorAll(".command")) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "copy";
      button.setAttribute("aria-label", `copy the command ${command.textContent}`);
      command.append(button);
    }
  }

  async function copy(button) {
    try {
      await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
      button.textContent = "copied";
    } catch {
      button.textContent = "not allowed";
    }
  }

  async function renew() {
    clearTimeout(timer);
    // Nobody looks, or somebody is about to copy.
    if (!document.hidden && !isSelecting()) {
      try {
        const response = await fetch(location.pathname + location.search, {
          cache: "no-store",
          signal: AbortSignal.timeout(10000),
        });
        if (!response.ok) throw new Error(`status ${response.status}`);
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        const fresh = page.getElementById("main");
        if (!fresh) throw new Error("another page");
        // Another exporter with another style.
        if (make(page) !== make(document)) return location.reload();
        const date = Date.parse(response.headers.get("date"));
        // The header has whole seconds, cut off.
        if (!Number.isNaN(date)) skew = (date + 500 - Date.now()) / 1000;
        if (fresh.dataset.timestamp !== main().dataset.timestamp) {
          document.title = page.title;
          swap(fresh);
        }
        answered = performance.now();
        trouble = null;
      } catch (error) {
        trouble = error instanceof TypeError ? "no connection" : error.name === "TimeoutError" ? "too slow" : error.message;
      }
    }
    show();
    const interval = number("interval");
    const due = Number.isNaN(age()) ? interval : interval - age() + 0.25;
    timer = setTimeout(renew, 1000 * Math.min(interval, Math.max(due, interval / 5, 0.5)));
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".command button");
    if (button) copy(button);
  });
  document.addEventListener("visibilitychange", () => document.hidden || renew());
  addCopies(main());
  setInterval(show, 1000);
  renew();
})();
