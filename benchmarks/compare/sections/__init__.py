"""The parts of the page, each written from what was measured; a part without figures is left out."""
