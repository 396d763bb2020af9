"""Charts of reports, as SVG that a README can show: written by hand, small, and the same every time.

`svg` writes elements, `scale` turns values into places, `axes` draws what charts have in common, and each
other module is one chart: a pure function from reports to the text of a file. A library for plots would be
a dependency of many megabytes, and its output would differ from release to release.
"""
