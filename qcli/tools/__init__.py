"""Tools: functions that a model may ask for, how it writes such a call, and how functions of a file are called."""
