"""Colors, names and roles of the page: what Gradio's own parts lack for keyboards, screen readers and weak eyes.

Measured with axe. The script mends parts as they appear, since Gradio makes them in the browser.
"""

from __future__ import annotations

from typing import Any

STYLE = """
.legend, .legend tr { width: auto; border-collapse: collapse; border: none !important; }
.legend th, .legend td { padding: 2px 10px 2px 0; text-align: left; font-weight: 400; border: none; }
.legend td { text-align: right; font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 1em; height: 1em; margin-right: .5em; vertical-align: -.15em;
          border: 1px solid #8888; }
.or, .min_value, .max_value, .show-api { color: var(--body-text-color) !important; }
.dark button.selected[role=tab] { color: var(--primary-300); }
.token.string { color: #456000; }
.token.comment, .token.punctuation { color: #5a5a5a; }
.dark .token.string { color: #a5c261; }
.dark .token.comment, .dark .token.punctuation { color: #b5b5b5; }
"""

HEAD = """
<script>
(() => {
  const mend = () => {
    for (const each of document.querySelectorAll("div[aria-label]:not([role])")) each.setAttribute("role", "img");
    for (const each of document.querySelectorAll("button.upload-container")) each.removeAttribute("aria-label");
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
