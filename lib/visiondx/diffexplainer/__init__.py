"""DiffExplainer (Pennisi et al., CVIU 2025): what a class or a neuron wants to see, as pictures.

An `objectives.Aim` says what is wanted of a target - a class, a channel or neuron of a layer, sums
of these - and `objectives.Objectives` turns many of them into losses of one batch of images.
`features` has the layer before the classifier and the features that carry a class. `baselines`
maximises the same aims without a diffusion model. `hard_prompts` keeps a prompt's free tokens to
words of the vocabulary (section 4.4).
"""
