"""The paper's evaluation at this machine's scale: what to run, how, and what to say of it.

``plan`` says what there is to run, ``memory`` and ``daemons`` run one of it, ``run`` all that a
record (``results``) lacks. ``cells`` puts the outcomes in their places, beside ``margins``;
``accuracy`` and ``cost`` make tables and plots of them, and ``report`` writes these.
"""
