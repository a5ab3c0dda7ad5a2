"""The paper's efficiency benchmark (Warner et al. 2024, section 4.2 and appendix), for any model.

documents   the four sets of random documents
settings    options, and the sides
worker      one side, in a process of its own
comparison  all sides on all sets
tables      our figures beside the paper's
"""
