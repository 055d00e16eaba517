"""What real inputs do to the tensors of a bundle's graphs: ranges, histograms, channels, and samples of rows."""
