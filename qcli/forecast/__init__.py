"""What a model would take of this machine, found without its weights: memory by the engine's own rules, speed by a trial run.

`forecast` decides the mode, `SyntheticModel` stands for the weights, `SimulatedCache` for the expert cache of a streamed model,
`timing` runs the engine's plans on them for a second or two.
"""
