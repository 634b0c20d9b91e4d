"""Training losses of "Class-Balancing Diffusion Models" (Qin et al., CVPR 2023).

A loss is called as ``loss(net, x0, y, draws)`` and returns per-sample terms: name -> (N,).
It draws nothing itself: `Draws` holds the random numbers of these images. Reduction, logging
and the cluster belong to the train loop.

    options    what a run says of its objective
    draws      the random numbers of a batch
    predict    all predictions of a batch in one network call
    ddpm       Equation 1
    cbdm       Equation 4, Algorithm 1
    tcfg       Equations 32 and 33, which either of them may add
    build      from options to loss
"""
