"""From the records of a run folder to a page, a terminal summary and overlays; never needs TensorFlow.

- `tfprune.report.page.write_report`: one run folder -> one self-contained `report.html`
- `tfprune.report.comparison.write_comparison`: several run folders -> one page
- `tfprune.report.summary.summarise`: one run folder -> what the terminal shows
- `tfprune.report.overlays`: masks drawn over images, with numpy and Pillow alone

The modules are imported one by one, so that a board without matplotlib and jinja2 can draw overlays.
"""
