"""How nodes learn together, with no socket, clock, file, thread or randomness of its own.

There are several algorithms behind one interface (algorithms.py, core.py).  By the default, pair, a
node owns a vector x.  The learner's progress adds to it, exchanges with random peers pull it
towards theirs, and an outer step with momentum closes each period (NoLoCo, Kolehmainen et al. 2025,
with beta = gamma and groups of two, so that one vector is sent instead of two):

    progress   x <- x + (snapshot - what the learner had)
    exchange   x_i <- x_i + d/2,  x_j <- x_j - d/2,  d = Q(x_j - x_i)      (quantiser, screening)
    outer      d = x - phi;  m <- alpha m + d;  phi <- phi + gamma (d + alpha m);  x <- phi
    increment  x - what the learner has, added to the live parameters

Both sides of an exchange move by exactly opposite amounts, also when clipped, so the swarm's mean
follows one centralised Nesterov step whatever the pairing, the losses or the quantiser.
"""
