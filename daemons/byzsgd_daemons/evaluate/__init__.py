"""The paper's evaluation at this machine's scale: what to run, how, and what to say of it.

``plan`` says what there is to run, ``memory`` and ``daemons`` run one of it, ``run`` all that a
record (``results``) lacks. ``report`` makes tables and plots of the record, beside ``margins``.
"""
