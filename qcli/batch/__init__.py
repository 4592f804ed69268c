"""Files of questions, answered line by line: what a line asks, where its result goes, and how a stopped run goes on."""
