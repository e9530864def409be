"""`mmlit data check`: what a data set holds, what is wrong with it, and a copy without that."""
