"""`mmlit compare --report`: the comparison as one page that explains itself."""
