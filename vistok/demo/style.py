"""How the page looks: fonts of the visitor's own machine, and a little CSS in the theme's colours."""

import gradio as gr

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"]
MONOSPACE = ["ui-monospace", "SFMono-Regular", "Menlo", "Liberation Mono", "monospace"]


def theme() -> gr.Theme:
    """Gradio's soft theme in teal and slate, with fonts that nobody need fetch.

    Its text is darkened, and what lies under white text too, until WCAG's 4.5:1 are met.
    """
    soft = gr.themes.Soft(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=MONOSPACE)
    return soft.set(
        body_text_color_subdued="*neutral_600",
        block_label_text_color="*primary_700",
        block_label_background_fill_dark="*primary_700",
        block_title_text_color="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
    )


CSS = """
.gradio-container { width: 100%; min-width: 0 !important; max-width: 1280px !important;
  margin: 0 auto !important; }
.head h1 { font-size: 1.7rem; margin: 0 0 .2rem; }
.head p { margin: 0; color: var(--body-text-color-subdued); max-width: 62rem; }
.pixels img { image-rendering: pixelated; }
.panels img { width: 100%; height: 100%; object-fit: contain; }
.clickable img { cursor: crosshair; }
.tiles { display: flex; flex-wrap: wrap; gap: .5rem; margin: 0; }
.tile { flex: 1 0 auto; min-width: 5.5rem; display: flex; flex-direction: column; gap: .1rem;
  padding: .55rem .7rem; border-radius: .6rem;
  background: var(--block-background-fill); border: 1px solid var(--border-color-primary); }
.tile dd { margin: 0; font-size: .98rem; font-weight: 600; white-space: nowrap; }
.tile dt { font-size: .78rem; color: var(--body-text-color-subdued); }
.note { margin: .1rem .2rem; font-size: .88rem; }
.note, .tile dt, .facts dt { color: var(--body-text-color-subdued) !important; }
.legend { display: flex; align-items: center; gap: .5rem; font-size: .8rem; flex-wrap: wrap; }
.legend .heat { width: 7rem; height: .7rem; border-radius: .2rem;
  border: 1px solid var(--border-color-primary);
  background: linear-gradient(90deg, #000004, #51127c, #b73779, #fc8961, #fcfdbf); }
.chart { margin: .3rem 0; }
#use .chart:first-of-type { margin-top: 1.5rem; }
.chart svg { width: 100%; height: 6rem; display: block;
  border-bottom: 1px solid var(--border-color-primary); }
.chart rect { fill: var(--primary-500); }
.chart line { stroke: var(--body-text-color-subdued); stroke-width: .3; }
.chart figcaption, .chart .axis { font-size: .82rem; color: var(--body-text-color-subdued); }
.chart .axis { display: flex; justify-content: space-between; }
.facts { display: grid; gap: .25rem; margin: 0 0 .4rem; }
.facts > div { display: grid; grid-template-columns: 6rem 1fr; gap: .5rem; }
.facts dt { color: var(--body-text-color-subdued); }
.facts dd { margin: 0; font-weight: 500; }
table.compared { width: 100%; border-collapse: collapse; font-size: .88rem; border: 0 !important; }
table.compared tr { border: 0 !important; }
table.compared th, table.compared td { text-align: right !important; padding: .4rem .45rem;
  border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; }
table.compared th:first-child { text-align: left !important; }
table.compared td { white-space: nowrap; }
table.compared .best { font-weight: 700; color: var(--primary-700); }
.dark table.compared .best { color: var(--primary-400); }
button[role="tab"].selected { color: var(--primary-700) !important; }
.dark button[role="tab"].selected { color: var(--primary-400) !important; }
body:not(.dark) #guide .token { color: inherit !important; }
.scrolls { overflow-x: auto; }
#examples .grid-wrap { max-height: none; height: auto; min-height: 0; overflow: hidden; padding: .4rem; }
#examples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; gap: .3rem; }
#examples .caption-label { display: none; }
@media (min-width: 900px) { .inputs { position: sticky; top: .5rem; align-self: flex-start; } }
#lines .codemirror-wrapper { overflow-x: auto; }
@media (max-width: 640px) {
  .tab-container button { padding: 0 .28rem !important; font-size: .82rem !important; }
  .gradio-container .column, .gradio-container .block, .gradio-container .form, .gradio-container main,
  .gradio-container .wrap, .gradio-container .row > * { min-width: 0 !important; max-width: 100%; }
  .panel [data-testid="block-label"] { font-size: .7rem; padding: .15rem .3rem; }
  .panels .panel { height: 190px !important; }
  .stacks { flex-direction: column; } .stacks .panel { height: auto !important; } }
"""
