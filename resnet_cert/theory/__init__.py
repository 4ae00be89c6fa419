"""The theorems, one function each, and the pages that explain them."""
