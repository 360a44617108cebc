// What the theme leaves out for whoever works with a keyboard or a screen reader.
addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  document.querySelectorAll(".md-code__nav").forEach((nav, index) => {
    nav.setAttribute("aria-label", `Buttons of code block ${index + 1}`);
  });
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
