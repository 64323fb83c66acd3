"""visiondx_worlds: the ground whose truth is known.

Worlds that are rendered, the models that come with the repository, how they were trained, and each
method's marks against the truth. It may import `visiondx`; never the other way round.
"""
