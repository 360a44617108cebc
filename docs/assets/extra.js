// What the theme leaves out for whoever works with a keyboard or a screen reader.
addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  document.querySelectorAll(".md-code__nav").forEach((nav, index) => {
    nav.setAttribute("aria-label", `Buttons of code block ${index + 1}`);
  });
  for (const nav of document.querySelectorAll(".md-nav[aria-labelledby]")) {
    const title = nav.querySelector(":scope > .md-nav__title")?.textContent.trim(); // which the theme hides, name and all
    if (!title) continue;
    nav.removeAttribute("aria-labelledby");
    nav.setAttribute("aria-label", `Pages of ${title}`);
  }
  const tables = [...document.querySelectorAll(".md-typeset__scrollwrap")];
  const reach = () => {
    for (const table of tables) {
      if (table.scrollWidth <= table.clientWidth) continue; // nothing to scroll
      table.tabIndex = 0;
      table.setAttribute("role", "group");
      table.setAttribute("aria-label", "Table");
    }
  };
  reach();
  addEventListener("resize", reach);
});
