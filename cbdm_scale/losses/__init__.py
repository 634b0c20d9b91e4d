"""Training losses of "Class-Balancing Diffusion Models" (Qin et al., CVPR 2023).

An objective is a sum of terms. It is called as ``objective(net, x0, y, draws)``, calls the
network once, and returns the loss of each image by name: name -> (N,), among them "total".
It draws nothing itself: `Draws` holds the random numbers of these images. Reduction, logging
and the cluster belong to the train loop.

    options     which objective a run has, and its numbers
    term        what a term is: its random numbers, the predictions that it wants, its values
    ddpm        Equation 1
    cbdm        Equation 4, Algorithm 1
    tcfg        Equations 32 and 33
    distillation   TCFG's second stage: a trained network's guidance by one prediction
    delta_fm    contrastive flow matching; t2h the transfer of OC; two_mask what is left of CM
    ccua        CCUA: alignment with the prediction without label, and contrast of its features
    coral       supervised contrast of features; dispersive spreads them; contrast has the maths
    objective   the sum of some terms, in one network call
    draws       the random numbers of a batch
    build       from options to objective
"""
