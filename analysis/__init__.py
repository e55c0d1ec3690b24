"""One module per figure or table of the study: `compute` gives arrays, `draw` makes a figure of them."""
