// What the pages do beyond being read: the theme button, and the care that is
// taken while htmx renews the live part. Reading works without it.
(() => {
  const root = document.documentElement;
  const store = {
    get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
    set: (v) => { try { localStorage.setItem("theme", v); } catch { /* not kept, still applied */ } },
  };
  const saved = store.get();
  if (saved === "light" || saved === "dark") root.dataset.theme = saved;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);

  const themeButton = () => {
    const button = document.getElementById("theme");
    const name = () => button.setAttribute("aria-label", dark() ? "Switch to light" : "Switch to dark");
    button.hidden = false;
    name();
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      store.set(root.dataset.theme);
      name();
    });
  };

  // The mark beside the host name: made at a time; kept fresh; or cut off.
  const marked = (state, text) => {
    const mark = document.getElementById("fresh");
    if (mark.dataset.state === state) return;
    mark.dataset.state = state;
    mark.textContent = text;
  };
  const time = () => new Date().toISOString().slice(11, 19) + " UTC";

  const liveParts = () => {
    const live = document.getElementById("live");
    if (!live || !window.htmx) return;
    // What the reader opened stays open.
    Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.tagName === "DETAILS");
    marked("live", "live");
    // A tab that nobody looks at asks for nothing, and is fresh when it is looked at again.
    document.addEventListener("htmx:beforeRequest", (e) => {
      if (document.hidden && e.target.id === "live") e.preventDefault();
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) htmx.trigger("#live", "refresh");
    });
    document.addEventListener("htmx:afterRequest", (e) => {
      if (e.detail.successful) marked("live", "live");
    });
    document.addEventListener("htmx:sendError", () => marked("lost", "pawl does not answer since " + time()));
    document.addEventListener("htmx:responseError", () => marked("lost", "not renewed since " + time() + ": pawl answers with an error"));
  };

  addEventListener("DOMContentLoaded", () => {
    themeButton();
    liveParts();
  });
})();
