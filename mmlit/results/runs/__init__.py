"""`mmlit runs`: finished and unfinished runs, found, shown, set side by side, and tidied up."""
