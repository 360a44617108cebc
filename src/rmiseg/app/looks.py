"""Colors, names and roles of the page: what Gradio's own parts lack for keyboards, screen readers and weak eyes.

Measured with axe. The script mends parts as they appear, since Gradio makes them in the browser.
"""

from __future__ import annotations

from typing import Any

from rmiseg.data.classes import ClassTable

STYLE = """
.legend, .legend tr { width: auto; border-collapse: collapse; border: none !important; }
.legend th, .legend td { padding: 2px 10px 2px 0; text-align: left; font-weight: 400; border: none; }
.legend td { text-align: right; font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 1em; height: 1em; margin-right: .5em; vertical-align: -.15em;
          border: 1px solid #8888; }
footer .divider { display: none; }
.icon-button[aria-label="common.upload"] { display: none; }
.or, .min_value, .max_value, .show-api { color: var(--body-text-color) !important; }
.dark button.selected[role=tab] { color: var(--primary-300); }
.token.string { color: #456000; }
.token.comment, .token.punctuation { color: #5a5a5a; }
.json-node .value.number { color: #0b5a78; }
.json-node .key { color: #8a3b1f; }
.dark .download-link { color: #93c5fd; }
.dark .json-node .value.number { color: #8fc7dc; }
.dark .json-node .key { color: #f0a58c; }
.dark .token.string { color: #a5c261; }
.dark .token.comment, .dark .token.punctuation { color: #b5b5b5; }
"""

# Of the rules above: Gradio leaves a divider where no link follows; its button for more files has no name but a key
# that was not translated, and a button inside.

HEAD = """
<script>
(() => {
  const mend = () => {
    for (const each of document.querySelectorAll("div[aria-label]:not([role])")) each.setAttribute("role", "img");
    for (const each of document.querySelectorAll("button.upload-container")) each.removeAttribute("aria-label");
    for (const each of document.querySelectorAll("pre:not([tabindex])")) each.tabIndex = 0;
    for (const each of document.querySelectorAll("button:not([aria-label]) img:not([data-named])")) {
      const button = each.closest("button");
      each.dataset.named = "";
      if (button.innerText.trim() || each.alt) continue;
      const title = button.closest(".block")?.querySelector("label, [data-testid='block-label']")?.innerText.trim();
      button.setAttribute("aria-label", `Enlarge ${title || "the image"}`);
    }
  };
  new MutationObserver(mend).observe(document, { childList: true, subtree: true });
  mend();
})();
</script>
"""


def swatches(selector: str, classes: ClassTable) -> str:
    """Rules that put the color of each class before its name, in a group of checkboxes.

    Args:
        selector: The group's.
        classes: The classes, in the order of the checkboxes.
    """
    square = "content: ''; display: inline-block; width: 1em; height: 1em; margin-right: .5em; vertical-align: -.15em"
    rules = [f"{selector} label span::before {{ {square}; border: 1px solid #8888; }}"]
    for index, color in enumerate(classes.palette, start=1):
        rules.append(f"{selector} label:nth-of-type({index}) span::before {{ background: rgb{tuple(color)}; }}")
    return "\n".join(rules)


def theme(gr: Any) -> Any:
    """The theme: no font is downloaded, and every text is dark enough on its ground.

    Args:
        gr: The module gradio.
    """
    made = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return made.set(
        color_accent="*primary_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )
